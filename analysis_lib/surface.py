"""Maps of auditory cortex, in pure Python.

Voxels of the two public data sets lie on a flattened 2 mm grid per hemisphere, which is drawn as
it is. The group maps of the six components lie on the fsaverage surface, whose first 10,242
vertices per hemisphere are fsaverage5, the mesh that comes with nilearn.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import nibabel
import numpy as np
import scipy
import xarray as xr

from .errors import DataError, MissingDataError, UnknownNameError

__all__ = [
    "COMPONENT_NUMBERS",
    "flat_grid",
    "group_component_map",
    "plot_flat_grid",
    "plot_surface",
    "voxels_to_vertices",
]

N_VERTICES = 10_242  # of fsaverage5, per hemisphere
GRID_STEP = 2.0  # mm
COMPONENT_NUMBERS: Mapping[str, int] = MappingProxyType(
    {
        "Low frequency": 1,
        "High frequency": 2,
        "Broadband": 3,
        "Pitch": 4,
        "Speech": 5,
        "Music": 6,
    }
)
_SIDES = MappingProxyType({"left": "lh", "right": "rh"})
# Elevation and azimuth from which the superior temporal plane shows, in degrees.
_VIEWS = MappingProxyType({"left": (30.0, 180.0), "right": (30.0, 0.0)})


def group_component_map(folder: Path, component: str) -> dict[str, np.ndarray]:
    """Read where the weights of a component are significant in the group of 10 subjects.

    Parameters
    ----------
    folder : path
        Holds ``component-weight-significances/group/{lh,rh}.comp{1..6}.mgz``, as
        ``data.fetch.fetch("natsound165", "component-weight-significances/*")`` returns it.
    component : str
        One of :data:`COMPONENT_NUMBERS`; files are numbered in the order of ``components.mat``.

    Returns
    -------
    dict of {"left", "right"} to array of shape (10242,)
        Signed -log10 p on fsaverage5, NaN outside the region that was measured.

    Raises
    ------
    UnknownNameError, MissingDataError, DataError
        For an unknown component, a missing file, or one that is not on fsaverage.

    References
    ----------
    Norman-Haignere, Kanwisher & McDermott (2015), Neuron.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import nibabel, numpy as np
    >>> from analysis_lib import surface
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> maps = folder / "component-weight-significances" / "group"
    >>> maps.mkdir(parents=True)
    >>> everywhere = np.ones((163842, 1, 1), "f4")
    >>> for side in ("lh", "rh"):
    ...     nibabel.save(nibabel.MGHImage(everywhere, np.eye(4)), maps / f"{side}.comp5.mgz")
    ...
    >>> surface.group_component_map(folder, "Speech")["left"].shape
    (10242,)
    """
    if component not in COMPONENT_NUMBERS:
        raise UnknownNameError("component", component, COMPONENT_NUMBERS)
    maps = {}
    for side, prefix in _SIDES.items():
        name = f"{prefix}.comp{COMPONENT_NUMBERS[component]}.mgz"
        path = Path(folder) / "component-weight-significances" / "group" / name
        if not path.is_file():
            raise MissingDataError(f"no map {path}; fetch it with the natsound165 data set")
        values = np.squeeze(nibabel.load(path).get_fdata())
        if values.shape != (163_842,):
            raise DataError(f"{path} has shape {values.shape}, fsaverage has 163,842 vertices")
        maps[side] = values[:N_VERTICES]
    return maps


def voxels_to_vertices(
    values: np.ndarray, xy: np.ndarray, vertex_xy: np.ndarray, radius: float = GRID_STEP
) -> np.ndarray:
    """Undo the flattening of one hemisphere, given where its vertices lie on the flat grid.

    Parameters
    ----------
    values : array of shape (n_voxels,)
        Several voxels at one place (subjects) are summarised by their median.
    xy : array of shape (n_voxels, 2)
        Their places on the flat grid, in mm.
    vertex_xy : array of shape (n_vertices, 2)
        Place of each vertex on the same grid, NaN for vertices off the flattened patch. The
        public voxel archive does not hold these.
    radius : float
        Vertices farther than this from every voxel get NaN.

    Returns
    -------
    array of shape (n_vertices,)

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import surface
    >>> xy = np.array([[0.0, 0.0], [2.0, 0.0]])
    >>> vertices = np.array([[0.1, 0.0], [1.8, 0.0], [9.0, 9.0]])
    >>> surface.voxels_to_vertices(np.array([0.3, 0.7]), xy, vertices)
    array([0.3, 0.7, nan])
    """
    values, xy = np.asarray(values, dtype=float), np.asarray(xy, dtype=float)
    known = np.isfinite(values)
    result = np.full(len(vertex_xy), np.nan)
    if not known.any():
        return result
    places, member = np.unique(xy[known], axis=0, return_inverse=True)
    member = member.ravel()
    medians = np.array([np.median(values[known][member == k]) for k in range(len(places))])
    on_patch = np.isfinite(vertex_xy).all(axis=1)
    distance, nearest = scipy.spatial.cKDTree(places).query(vertex_xy[on_patch])
    result[on_patch] = np.where(distance <= radius, medians[nearest], np.nan)
    return result


def flat_grid(
    values: xr.DataArray, hemisphere: str, statistic: Callable = np.nanmedian
) -> xr.DataArray:
    """Arrange voxels on the flattened grid of one hemisphere.

    Parameters
    ----------
    values : DataArray (target,)
        With ``hemisphere`` (lh, rh), ``x`` and ``y`` in mm along ``target``.
    hemisphere : {"lh", "rh"}
        Which one.
    statistic : callable
        Summarises voxels that share a place: those of different subjects.

    Returns
    -------
    DataArray (y, x)
        NaN where there is no voxel.

    Raises
    ------
    DataError
        When coordinates are missing, or no voxel lies in the hemisphere.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from analysis_lib import surface
    >>> places = {"x": [0.0, 2.0, 0.0, 2.0], "y": [0.0, 0.0, 2.0, 2.0], "hemisphere": ["lh"] * 4}
    >>> coords = {name: ("target", values) for name, values in places.items()}
    >>> values = xr.DataArray([0.1, 0.2, 0.3, 0.4], dims="target", coords=coords)
    >>> surface.flat_grid(values, "lh").values
    array([[0.1, 0.2],
           [0.3, 0.4]])
    """
    _require_places(values)
    here = values[(values["hemisphere"] == hemisphere).values]
    if here.sizes["target"] == 0:
        raise DataError(f"no voxel lies in hemisphere {hemisphere!r}")
    x, y = (_axis(here[name].values) for name in ("x", "y"))
    column = np.rint((here["x"].values - x[0]) / GRID_STEP).astype(int)
    row = np.rint((here["y"].values - y[0]) / GRID_STEP).astype(int)
    place = row * len(x) + column
    grid = np.full(len(x) * len(y), np.nan)
    for k in np.unique(place):
        inside = here.values[place == k]
        inside = inside[np.isfinite(inside)]
        if inside.size:
            grid[k] = statistic(inside)
    return xr.DataArray(
        grid.reshape(len(y), len(x)), dims=("y", "x"), coords={"y": y, "x": x}, name=values.name
    )


def plot_flat_grid(
    values: xr.DataArray,
    axes=None,
    cmap: str = "viridis",
    limits: tuple[float, float] | None = None,
    label: str = "",
    outlines: bool = True,
):
    """Draw voxels on the flattened 2 mm grid, one panel per hemisphere.

    Parameters
    ----------
    values : DataArray (target,)
        See :func:`flat_grid`; outlines also need ``roi``.
    axes : sequence of two matplotlib axes, optional
        Left and right hemisphere.
    cmap : str
        Colour map.
    limits : (float, float), optional
        Ends of the colour scale; by default the 2nd and 98th percentile.
    label : str
        What the colours mean, with the unit.
    outlines : bool
        Draw where one anatomical region ends and another begins, and name them.

    Returns
    -------
    list of matplotlib axes

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from analysis_lib import surface
    >>> places = {"x": [0.0, 2.0, 0.0, 2.0], "y": [0.0, 0.0, 2.0, 2.0], "hemisphere": ["lh"] * 4}
    >>> coords = {name: ("target", values) for name, values in places.items()}
    >>> values = xr.DataArray([0.1, 0.2, 0.3, 0.4], dims="target", coords=coords)
    >>> (ax,) = surface.plot_flat_grid(values, label="R²", outlines=False)
    """
    import matplotlib.pyplot as plt

    _require_places(values)
    present = [side for side in ("lh", "rh") if (values["hemisphere"] == side).any()]
    if axes is None:
        _, axes = plt.subplots(1, len(present), figsize=(4.2 * len(present), 3.6), squeeze=False)
        axes = axes[0]
    axes = list(np.atleast_1d(axes))[: len(present)]
    grids = [flat_grid(values, side) for side in present]
    if limits is None:
        shown = np.concatenate([grid.values[np.isfinite(grid.values)] for grid in grids])
        if shown.size == 0:
            raise DataError("there is no finite value to draw")
        limits = tuple(np.percentile(shown, [2, 98]))
    for ax, side, grid in zip(axes, present, grids, strict=True):
        half = GRID_STEP / 2
        extent = (
            float(grid.x[0]) - half,
            float(grid.x[-1]) + half,
            float(grid.y[0]) - half,
            float(grid.y[-1]) + half,
        )
        image = ax.imshow(
            grid, origin="lower", extent=extent, cmap=cmap, vmin=limits[0], vmax=limits[1]
        )
        if outlines and "roi" in values.coords:
            _outline_regions(ax, values[(values["hemisphere"] == side).values])
        ax.set_title({"lh": "Left hemisphere", "rh": "Right hemisphere"}[side])
        ax.set_xlabel("x on the flattened grid (mm)")
    axes[0].set_ylabel("y on the flattened grid (mm)")
    axes[0].figure.colorbar(image, ax=axes, label=label, shrink=0.8)
    return axes


def plot_surface(
    values: Mapping[str, np.ndarray],
    axes=None,
    cmap: str = "inferno",
    limits: tuple[float, float] | None = None,
    threshold: float | None = None,
    label: str = "",
    zoom: bool = True,
):
    """Draw a map on the inflated fsaverage5 surface, from the side and above, both hemispheres.

    Parameters
    ----------
    values : mapping of {"left", "right"} to array of shape (10242,)
        NaN is left grey.
    axes : sequence of matplotlib 3D axes, optional
        One per hemisphere.
    cmap : str
        Colour map.
    limits : (float, float), optional
        Ends of the colour scale; by default those of the values shown.
    threshold : float, optional
        Values smaller in magnitude are left grey.
    label : str
        What the colours mean, with the unit.
    zoom : bool
        Show the neighbourhood of the values (auditory cortex) rather than the whole hemisphere.

    Returns
    -------
    list of matplotlib axes

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import surface
    >>> patch = np.where(np.arange(10242) < 200, 1.0, np.nan)
    >>> axes = surface.plot_surface({"left": patch, "right": patch}, label="R²")
    >>> len(axes)
    2
    """
    import matplotlib as mpl
    import matplotlib.pyplot as plt
    from nilearn import datasets, plotting

    for side, array in values.items():
        if side not in _SIDES:
            raise UnknownNameError("hemisphere", side, _SIDES)
        if np.shape(array) != (N_VERTICES,):
            raise DataError(
                f"{side}: shape {np.shape(array)}, fsaverage5 has {N_VERTICES} vertices"
            )
    shown = np.concatenate([array[np.isfinite(array)] for array in values.values()])
    if shown.size == 0:
        raise DataError("there is no finite value to draw")
    limits = limits or (float(shown.min()), float(shown.max()))
    mesh = datasets.load_fsaverage("fsaverage5")
    sulci = datasets.load_fsaverage_data("fsaverage5", data_type="sulcal")
    sides = [side for side in _SIDES if side in values]
    if axes is None:
        _, axes = plt.subplots(
            1, len(sides), figsize=(4.2 * len(sides), 3.6), subplot_kw={"projection": "3d"},
            squeeze=False,
        )  # fmt: skip
        axes = axes[0]
    axes = list(np.atleast_1d(axes))
    for ax, side in zip(axes, sides, strict=True):
        array = np.where(np.abs(values[side]) < (threshold or 0), np.nan, values[side])
        plotting.plot_surf(
            mesh["inflated"].parts[side],
            array,
            bg_map=sulci.data.parts[side],
            hemi=side,
            view=_VIEWS[side],
            cmap=cmap,
            vmin=limits[0],
            vmax=limits[1],
            colorbar=False,
            bg_on_data=False,
            axes=ax,
        )
        if zoom:
            _zoom(ax, mesh["inflated"].parts[side].coordinates[np.isfinite(values[side])])
        ax.set_title(f"{side.capitalize()} hemisphere")
    scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(*limits), cmap)
    axes[0].figure.colorbar(scale, ax=axes, label=label, shrink=0.7)
    return axes


def _zoom(ax, region: np.ndarray) -> None:
    """Centre a 3D axes on vertices (n, 3), in mm."""
    if len(region) == 0:
        return
    centre = (region.min(axis=0) + region.max(axis=0)) / 2
    half = 0.5 * np.ptp(region, axis=0).max()
    for axis, middle in zip("xyz", centre, strict=True):
        getattr(ax, f"set_{axis}lim")(middle - half, middle + half)
    ax.set_box_aspect((1, 1, 1), zoom=1.3)


def _outline_regions(ax, values: xr.DataArray) -> None:
    """Draw the borders between regions, and their names, on the flat grid of one hemisphere."""
    from matplotlib.collections import LineCollection
    from matplotlib.patheffects import withStroke

    names = [name for name in np.unique(values["roi"].values.astype(str)) if name]
    if not names:
        return
    code = values.copy(data=[names.index(n) if n else -1 for n in values["roi"].values.astype(str)])
    grid = flat_grid(code.astype(float), str(values["hemisphere"].values[0]), _most_frequent)
    label = np.pad(np.nan_to_num(grid.values, nan=-1).astype(int), 1, constant_values=-1)
    x0, y0 = float(grid.x[0]) - 1.5 * GRID_STEP, float(grid.y[0]) - 1.5 * GRID_STEP
    rows, columns = np.nonzero(label[:, 1:] != label[:, :-1])
    lines = [
        [(x0 + (c + 1) * GRID_STEP, y0 + (r + k) * GRID_STEP) for k in (0, 1)]
        for r, c in zip(rows, columns, strict=True)
    ]
    rows, columns = np.nonzero(label[1:] != label[:-1])
    lines += [
        [(x0 + (c + k) * GRID_STEP, y0 + (r + 1) * GRID_STEP) for k in (0, 1)]
        for r, c in zip(rows, columns, strict=True)
    ]
    ax.add_collection(LineCollection(lines, colors="black", linewidths=1.2))
    for k, name in enumerate(names):
        rows, columns = np.nonzero(label == k)
        if rows.size:
            ax.text(
                x0 + (columns.mean() + 0.5) * GRID_STEP,
                y0 + (rows.mean() + 0.5) * GRID_STEP,
                name,
                ha="center",
                va="center",
                fontsize="x-small",
                path_effects=[withStroke(linewidth=2, foreground="white")],
            )


def _most_frequent(codes: np.ndarray) -> float:
    kinds, counts = np.unique(codes, return_counts=True)
    return float(kinds[counts.argmax()])


def _axis(values: np.ndarray) -> np.ndarray:
    """Regular axis in mm that covers all values."""
    steps = int(np.rint((values.max() - values.min()) / GRID_STEP))
    return values.min() + GRID_STEP * np.arange(steps + 1)


def _require_places(values: xr.DataArray) -> None:
    if not isinstance(values, xr.DataArray) or values.dims != ("target",):
        raise DataError("one value per voxel is needed: a DataArray (target,)")
    absent = [name for name in ("hemisphere", "x", "y") if name not in values.coords]
    if absent:
        raise DataError(
            f"these responses carry no {', '.join(absent)}, so they have no place on a map"
        )
