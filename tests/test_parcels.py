import nibabel
import numpy as np
import pytest

from analysis_lib import parcels
from analysis_lib.errors import DataError


def test_parcels_are_painted_where_they_are(tmp_path):
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = (-96, -132, -78)
    image = np.zeros((49, 59, 49), np.int16)
    image[8:13, 25:40, 17:25], image[36:41, 25:40, 17:25] = 1, 2  # both temporal lobes
    path = tmp_path / "atlas.nii.gz"
    nibabel.save(nibabel.Nifti1Image(image, affine), path)
    painted = parcels.parcels_to_vertices([0.25, 0.75], path)
    for side, value in (("left", 0.25), ("right", 0.75)):
        seen = painted[side][np.isfinite(painted[side])]
        assert painted[side].shape == (10_242,) and (seen == value).all()
        assert 50 < len(seen) < 3_000
    with pytest.raises(DataError, match="label 2 for 1"):
        parcels.parcels_to_vertices([0.25], path)
