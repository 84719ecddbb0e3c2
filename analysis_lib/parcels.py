"""Parcels of a volume on the cortical surface."""

from pathlib import Path

import nibabel
import numpy as np

from .errors import DataError

__all__ = ["parcels_to_vertices"]


def parcels_to_vertices(values: np.ndarray, parcellation: Path) -> dict[str, np.ndarray]:
    """Paint values of parcels onto the fsaverage5 surface.

    What it returns is what :func:`analysis_lib.surface.plot_surface` draws.

    Parameters
    ----------
    values : array of shape (n_parcels,)
        Value ``i`` belongs to label ``i + 1``.
    parcellation : path
        NIfTI image of labels in MNI space, as ``parcellation`` of
        :class:`analysis_lib.data.friends.FriendsData`.

    Returns
    -------
    dict of {"left", "right"} to array of shape (10242,)
        The most frequent label between the white and the outer surface decides; NaN where there
        is none.

    Raises
    ------
    DataError
        When there are more labels than values.

    Examples
    --------
    >>> import nibabel
    >>> import numpy as np
    >>> from analysis_lib import parcels
    >>> halves = np.ones((49, 59, 49), np.int16)
    >>> halves[25:] = 2  # the right half of the head
    >>> affine = np.diag([4.0, 4.0, 4.0, 1.0])
    >>> affine[:3, 3] = (-96, -132, -78)
    >>> nibabel.save(nibabel.Nifti1Image(halves, affine), "halves.nii.gz")
    >>> painted = parcels.parcels_to_vertices([0.25, 0.75], "halves.nii.gz")
    >>> {side: (len(values), float(np.median(values))) for side, values in painted.items()}
    {'left': (10242, 0.25), 'right': (10242, 0.75)}
    """
    from nilearn import datasets
    from nilearn.surface import SurfaceImage

    values = np.append(np.asarray(values, dtype=float), np.nan)  # the last one: no parcel
    meshes = datasets.load_fsaverage("fsaverage5")
    labels = SurfaceImage.from_volume(
        meshes["pial"],
        nibabel.load(parcellation),
        inner_mesh=meshes["white_matter"],
        interpolation="nearest_most_frequent",
    )
    painted = {}
    for side in ("left", "right"):
        label = np.nan_to_num(np.squeeze(labels.data.parts[side])).round().astype(int)
        if label.max() > len(values) - 1:
            raise DataError(f"{parcellation} has label {label.max()} for {len(values) - 1} values")
        painted[side] = values[label - 1]
    return painted
