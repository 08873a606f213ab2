import torch

from mmdet3d_plugin.engine import load_config
from mmdet3d_plugin.engine.cli import message_of
from mmdet3d_plugin.errors import UserError


class Broken(torch.utils.data.Dataset):

    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise UserError('scan 7.bin: cut short;\n  copy it again')


def test_errors_of_data_workers_are_one_line():
    try:
        list(torch.utils.data.DataLoader(Broken(), num_workers=1))
    except UserError as error:
        assert str(error).startswith('Caught UserError in DataLoader worker')
        assert message_of(error) == 'scan 7.bin: cut short; copy it again'
    else:
        raise AssertionError('no error arrived')
    assert message_of(UserError('plain')) == 'plain'


def test_a_loader_without_workers_has_no_options_of_workers():
    path = 'configs/kd360/kd360_student_r18_500it_toytown.py'
    options = {'val_dataloader.prefetch_factor': 4}
    plain = load_config(path, options)
    assert plain.val_dataloader.persistent_workers and plain.val_dataloader.prefetch_factor == 4
    loader = load_config(path, {**options, 'val_dataloader.num_workers': 0}).val_dataloader
    assert not loader.persistent_workers and 'prefetch_factor' not in loader
    torch.utils.data.DataLoader([0, 1], num_workers=loader.num_workers,
                                persistent_workers=loader.persistent_workers)
