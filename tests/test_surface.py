import matplotlib
import matplotlib.pyplot as plt
import nibabel
import numpy as np
import pytest
import xarray as xr

from analysis_lib import surface
from analysis_lib.errors import DataError, MissingDataError, UnknownNameError

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def voxels(values, x, y, hemisphere="lh", roi=None):
    n = len(values)
    roi = [""] * n if roi is None else roi
    hemisphere = [hemisphere] * n if isinstance(hemisphere, str) else hemisphere
    return xr.DataArray(
        np.asarray(values, dtype=float),
        dims="target",
        coords={
            "x": ("target", np.asarray(x, dtype=float)),
            "y": ("target", np.asarray(y, dtype=float)),
            "hemisphere": ("target", hemisphere),
            "roi": ("target", roi),
        },
    )


def write_maps(folder):
    rng = np.random.default_rng(0)
    place = folder / "component-weight-significances" / "group"
    place.mkdir(parents=True)
    written = {}
    for side, prefix in (("left", "lh"), ("right", "rh")):
        values = rng.standard_normal(163_842).astype(np.float32)
        values[::3] = np.nan
        written[side] = values
        image = nibabel.MGHImage(values[:, None, None], np.eye(4))
        nibabel.save(image, place / f"{prefix}.comp5.mgz")
    return written


def test_component_map_is_the_start_of_fsaverage(tmp_path):
    written = write_maps(tmp_path)
    maps = surface.group_component_map(tmp_path, "Speech")
    for side, values in maps.items():
        np.testing.assert_array_equal(values, written[side][:10_242])
    with pytest.raises(MissingDataError, match=r"lh\.comp6\.mgz"):
        surface.group_component_map(tmp_path, "Music")
    with pytest.raises(UnknownNameError, match="Speech"):
        surface.group_component_map(tmp_path, "Spech")


def test_real_maps_lie_on_the_temporal_lobe(real_data):
    """The speech component is significant near the superior temporal gyrus and nowhere far."""
    from nilearn import datasets

    maps = surface.group_component_map(f"{real_data}/natsound165", "Speech")
    mesh = datasets.load_fsaverage("fsaverage5")["pial"]
    for side, sign in (("left", -1), ("right", 1)):
        strong = mesh.parts[side].coordinates[np.nan_to_num(maps[side]) > 3]
        assert len(strong) > 50
        x, y, z = strong.mean(axis=0)  # mm: right, anterior, superior
        assert 45 < sign * x < 70 and -40 < y < 5 and -15 < z < 20


def test_vertices_take_the_median_of_the_nearest_place():
    values = [1.0, 3.0, 8.0, 5.0, np.nan]
    xy = [[0, 0], [0, 0], [0, 0], [4, 0], [8, 0]]
    vertex_xy = np.array([[0.4, 0.3], [3.5, 0], [8, 0], [50, 50], [np.nan, 0]])
    found = surface.voxels_to_vertices(values, xy, vertex_xy)
    np.testing.assert_array_equal(found, [3, 5, np.nan, np.nan, np.nan])
    assert np.isnan(surface.voxels_to_vertices([np.nan], [[0, 0]], vertex_xy)).all()


def test_grid_places_voxels_by_coordinate_and_pools_subjects():
    values = voxels(
        [1, 5, 2, 7, 100], [-4, -4, 0, -4, 0], [10, 10, 10, 14, 14], ["lh"] * 4 + ["rh"]
    )
    grid = surface.flat_grid(values, "lh")
    assert list(grid.x) == [-4, -2, 0] and list(grid.y) == [10, 12, 14]
    assert float(grid.sel(x=-4, y=10)) == 3 and float(grid.sel(x=0, y=10)) == 2
    assert float(grid.sel(x=-4, y=14)) == 7
    assert int(grid.notnull().sum()) == 3
    with pytest.raises(DataError, match="no voxel lies in hemisphere 'rh'"):
        surface.flat_grid(values[:4], "rh")
    with pytest.raises(DataError, match="carry no x"):
        surface.flat_grid(values.drop_vars("x"), "lh")


def test_flat_plot_draws_values_and_region_borders():
    x, y = np.meshgrid(np.arange(0, 12, 2), np.arange(0, 8, 2))
    roi = np.where(x.ravel() < 6, "Primary", "Lateral")
    values = voxels(x.ravel(), x.ravel(), y.ravel(), roi=list(roi))
    axes = surface.plot_flat_grid(values, label="depth")
    assert len(axes) == 1  # a hemisphere without voxels gets no panel
    drawn = axes[0].images[0].get_array()
    np.testing.assert_array_equal(drawn, x)
    segments = np.array(axes[0].collections[0].get_segments())
    between = segments[(segments[:, 0, 0] == 5) & (segments[:, 1, 0] == 5)]
    assert len(between) == 4  # the border between regions, once per row
    assert len(segments) == 4 * 3 + 6 * 2  # and the outer edge
    assert {text.get_text() for text in axes[0].texts} == {"Primary", "Lateral"}
    with pytest.raises(DataError, match="no finite value"):
        surface.plot_flat_grid(values * np.nan)


def test_surface_plot_is_zoomed_on_the_values():
    values = {side: np.full(10_242, np.nan) for side in ("left", "right")}
    from nilearn import datasets

    mesh = datasets.load_fsaverage("fsaverage5")["inflated"]
    for side, array in values.items():
        xyz = mesh.parts[side].coordinates
        centre = xyz[np.abs(xyz[:, 2] - 10).argmin()]
        array[np.linalg.norm(xyz - centre, axis=1) < 20] = 1.0
    near = surface.plot_surface(values, limits=(0, 2), label="z")
    assert [ax.get_title() for ax in near] == ["Left hemisphere", "Right hemisphere"]
    assert np.ptp(near[0].get_xlim()) < 60
    far = surface.plot_surface({"left": values["left"]}, limits=(0, 2), zoom=False)
    assert np.ptp(far[0].get_ylim()) > 100
    with pytest.raises(DataError, match="10242 vertices"):
        surface.plot_surface({"left": np.ones(5)})
    with pytest.raises(UnknownNameError, match="left"):
        surface.plot_surface({"lft": values["left"]})
