"""The three raw layouts side by side: a small toytown in each, its converter and its data set."""
from mmdet3d.registry import DATASETS

from data_converter import dur360bev, kitti360, nuscenes

LAYOUTS = ('dur360bev', 'kitti360', 'nuscenes')
SIZES = dict(dur360bev=dict(image_size=(32, 64), scan_size=(16, 64)),
             kitti360=dict(image_size=(48, 48), scan_size=(16, 64)),
             nuscenes=dict(image_size=(18, 32), scan_size=(32, 64), sweeps=(1, 1)))
TARGETS = [dict(type='RasterizeBEV',
                grid=dict(x_range=(-40, 40), y_range=(-40, 40), resolution=2.0),
                classes=[('car', 'bus', 'truck')]), dict(type='PackBEVInputs')]
STITCHED = dict(type='LoadStitchedPanorama', size=(16, 64), feather_px=4)
LOADERS = dict(
    dur360bev=[dict(type='LoadDualFisheyePanorama', size=(16, 32)), dict(type='LoadOusterScan'),
               dict(type='BuildLiDARImage', size=(12, 32))],
    kitti360=[dict(STITCHED, fov_deg=(90, -90)), dict(type='LoadPointCloud', undistort=True),
              dict(type='SphericalLiDARImage', native=(16, 64), size=(16, 32))],
    nuscenes=[STITCHED, dict(type='LoadPointCloud', min_range=2.5),
              dict(type='SphericalLiDARImage', native=(32, 64), size=(16, 32))])
DATASET = dict(dur360bev='Dur360BEVDataset', kitti360='Kitti360BEVDataset',
               nuscenes='NuScenesBEVDataset')


def write(layout, root):
    """Two sequences of three frames: one to train, one held out (KITTI-360's first has no pose)."""
    from data_converter.toytown import dur360bev_layout, kitti360_layout, nuscenes_layout
    writer = dict(dur360bev=dur360bev_layout, kitti360=kitti360_layout, nuscenes=nuscenes_layout)
    frames = 10 if layout == 'kitti360' else 6
    writer[layout].write(root, frames, 3, sequences=2, workers=1, supersample=1, **SIZES[layout])


def convert(layout, root, out, workers=1, check=False, **kwargs):
    """Convert a root; the info files go to ``out``."""
    root, out = str(root), str(out)
    if layout == 'dur360bev':
        return dur360bev.convert(root, out, 'extended', workers, check, **kwargs)
    if layout == 'kitti360':
        return kitti360.convert(root, out, None, workers, check, **kwargs)
    return nuscenes.convert(root, out, 'v1.0-mini', workers, check, **kwargs)


def infos(layout, out, split='train'):
    """Path of an info file."""
    return out / f'{layout}_infos_{split}.pkl'


def dataset(layout, root, out, split='train', **kwargs):
    """The data set of an info file, with camera, LiDAR and targets.

    Not serialised: mmengine collects garbage then, which takes longer than all the rest.
    """
    return DATASETS.build(dict(
        type=DATASET[layout], data_root=str(root), ann_file=str(infos(layout, out, split)),
        **{'pipeline': LOADERS[layout] + TARGETS, 'test_mode': split != 'train',
           'serialize_data': False, **kwargs}))
