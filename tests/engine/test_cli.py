import torch

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
