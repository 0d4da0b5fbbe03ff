"""HDF5: tomography in APS Data Exchange and NXtomo layout, our own frames, and single arrays by their path.

Data stay in the file and are read slab by slab; LZ4, bitshuffle and the like through hdf5plugin. Written scans are Data
Exchange files (data, theta in degrees, the source's white and dark fields and metadata), other frames /firstlight/data;
the description and all maps are in /firstlight. How they are written: `hdf_write`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import ReadError, WriteError
from firstlight.frame import Frame, Observation, Unit
from firstlight.geometry import Scan
from firstlight.io import describe, hdf_layouts
from firstlight.io.lazy import Lazy
from firstlight.io.npy import PLAIN_AXES
from firstlight.io.partial import Partial
from firstlight.io.storage import BLOCK_BYTES, Storage
from firstlight.io.writer import Format
from firstlight.noise import Unmodelled

__all__ = ["CODECS", "create", "read", "read_set"]

Array = NDArray[Any]
NO_GAIN = "no gain: pass a detector"
OURS = "firstlight"
FIELDS = {"white": "exchange/data_white", "dark": "exchange/data_dark"}
CODECS = ("bitshuffle-lz4", "lz4", "zstd", "gzip", "none")
OWN_FILTERS = 256  # filters from this number on are plugins


class _Part:
    """Reads parts of a dataset, opened on first use in each process; `rows` choose along the first axis."""

    def __init__(self, path: Path, name: str, rows: Array | None = None) -> None:
        self._path, self._name, self._rows = path, name, rows
        self._dataset: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_dataset": None}

    def __call__(self, key: Any) -> Array:
        try:
            if self._dataset is None:
                import h5py

                self._dataset = h5py.File(self._path, "r")[self._name]
                _load_filters(self._path, self._dataset)
            return np.asarray(self._dataset[key]) if self._rows is None else self._chosen(key)
        except (OSError, RuntimeError, KeyError) as error:
            raise ReadError(f"{self._path}: {self._name} cannot be read at {key} ({error}); copy the file again") from error

    def _chosen(self, key: Any) -> Array:
        key = key if isinstance(key, tuple) else (key,)
        if not key or key[0] is Ellipsis:
            key = (slice(None), *(key if len(key) > 1 else (Ellipsis,)))
        assert self._rows is not None
        rows = self._rows[key[0]]
        if np.ndim(rows) == 0:
            return np.asarray(self._dataset[(int(rows), *key[1:])])
        parts = [np.asarray(self._dataset[(slice(a, b), *key[1:])]) for a, b in _runs(rows)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _runs(rows: Array) -> list[tuple[int, int]]:
    """Ascending indices as half-open runs of neighbours: HDF5 reads a run at once, and a list of indices one by one."""
    if len(rows) == 0:
        return [(0, 0)]
    cuts = np.flatnonzero(np.diff(rows) != 1) + 1
    return [(int(part[0]), int(part[-1]) + 1) for part in np.split(rows, cuts)]


def _load_filters(path: Path, dataset: Any) -> None:
    """Register hdf5plugin's filters where a dataset needs them; raises ReadError for one that nobody here knows."""
    import h5py

    plist = dataset.id.get_create_plist()
    codes = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
    if any(code >= OWN_FILTERS for code in codes):
        import hdf5plugin  # noqa: F401  (registers its filters)
    unknown = [code for code in codes if not h5py.h5z.filter_avail(code)]
    if unknown:
        raise ReadError(f"{path}: {dataset.name} needs HDF5 filter {unknown}, which hdf5plugin lacks; repack with LZ4 or gzip")


def _lazy(path: Path, dataset: Any, rows: Array | None = None) -> Lazy:
    """A dataset that stays in the file; raises ReadError where it is no image or the file does not hold it whole."""
    name, shape = dataset.name, tuple(dataset.shape or ())
    if dataset.dtype.kind not in "fiub" or len(shape) < 2 or 0 in shape:
        raise ReadError(f"{path}: {name} is {shape} of {dataset.dtype}, expected an image or stack of real numbers")
    if dataset.is_virtual:
        lost = [
            s.file_name for s in dataset.virtual_sources() if s.file_name != "." and not (path.parent / s.file_name).exists()
        ]
        if lost:
            raise ReadError(f"{path}: {name} refers to {lost[0]}, which is missing; put it beside the file")
    elif dataset.id.get_storage_size() == 0:
        raise ReadError(f"{path}: {name} states a shape of {shape} but the file holds none of it; was it ever written?")
    elif dataset.chunks:
        have, want = dataset.id.get_num_chunks(), int(np.prod([-(-n // c) for n, c in zip(shape, dataset.chunks, strict=True)]))
        if have < want:
            raise ReadError(f"{path}: {name} holds {have} of {want} chunks: an unfinished or damaged acquisition")
    _load_filters(path, dataset)
    size = shape if rows is None else (len(rows), *shape[1:])
    decoded = dataset.chunks if dataset.chunks and dataset.id.get_create_plist().get_nfilters() else None
    return Lazy(size, dataset.dtype.newbyteorder("="), _Part(path, name, rows), decoded)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """An HDF5 file open for reading; raises ReadError where it is none, or cut short."""
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ReadError(f"{path}: HDF5 cannot open it ({error}); is it complete, and an HDF5 file?") from error
    with file:
        yield file


def read(path: Path, ext: str | int | None = None) -> Frame:
    """The frame "data" of a file, or `ext`: "white", "dark", or the path of a dataset in it. Data stay in the file.

    Data Exchange and NXtomo: (A, Y, X) [ADU unless the file names another unit] with a Scan of angles [rad]; white and dark
    fields (T, Y, X). Raises ReadError for missing or miscounted angles, data that the file does not hold, damaged files.
    """
    with opened(path) as file:
        members = _members(path, file)
        name = str(ext) if ext is not None else "data"
        if name in members:
            return members[name]()
        if ext is not None and hasattr(node := file.get(name), "shape"):
            return _plain(path, node)
        if ext is None and len(found := _images(file)) == 1:
            return _plain(path, file[found[0]])
        choices = [*members, *_images(file)][:12]
        raise ReadError(f"{path}: holds no {name!r}; choose one of its images with ext: {', '.join(choices) or '(none)'}")


def read_set(path: Path) -> dict[str, Frame]:
    """Every frame by name: "data" and, where the file has them, "white" and "dark" of the same detector area."""
    with opened(path) as file:
        members = _members(path, file)
        if not members:
            return {"data": read(path)}
        frames = {name: make() for name, make in members.items()}
    sizes = {name: f.shape[-2:] for name, f in frames.items()}
    if len(set(sizes.values())) > 1:
        raise ReadError(f"{path}: data and fields differ in size (Y, X): {sizes}; cut them to the same detector area")
    return frames


def _members(path: Path, file: Any) -> dict[str, Callable[[], Frame]]:
    if f"{OURS}/description" in file:
        fields = {k: _field(path, file, v) for k, v in FIELDS.items() if v in file}
        return {"data": lambda: _described(path, file), **fields}
    if hasattr(file.get("exchange/data"), "shape"):
        fields = {k: _field(path, file, v) for k, v in FIELDS.items() if v in file}
        return {"data": lambda: _exchange(path, file), **fields}
    group = hdf_layouts.image_key(file)
    return {} if group is None else _nexus(path, file, group)


def _frame(data: Any, axes: str, unit: Unit, observation: Observation, geometry: Scan | None = None) -> Frame:
    pixel = None if geometry is None else geometry.pixel
    spacing = {} if pixel is None else {"Y": pixel, "X": pixel}
    return Frame(data, axes, unit, Unmodelled(NO_GAIN), geometry=geometry, spacing=spacing, observation=observation)


def _exchange(path: Path, file: Any) -> Frame:
    dataset = file["exchange/data"]
    order = hdf_layouts.text(dataset.attrs.get("axes")) or "theta:y:x"
    if len(dataset.shape) != 3 or not order.startswith("theta"):
        raise ReadError(f"{path}: /exchange/data is {dataset.shape} in the order {order!r}, expected theta:y:x; transpose it")
    scan = hdf_layouts.exchange_scan(path, file, dataset.shape[0])
    observation = hdf_layouts.exchange_observation(path, file)
    return _frame(_lazy(path, dataset), "AYX", hdf_layouts.unit(dataset), observation, scan)


def _field(path: Path, file: Any, name: str) -> Callable[[], Frame]:
    def make() -> Frame:
        data = _lazy(path, file[name])
        if data.ndim > 3:
            raise ReadError(f"{path}: /{name} is {data.shape}, expected (frames, Y, X) or (Y, X)")
        observation = hdf_layouts.exchange_observation(path, file)
        return _frame(data, "TYX"[-data.ndim :], hdf_layouts.unit(file[name]), observation)

    return make


def _nexus(path: Path, file: Any, group: Any) -> dict[str, Callable[[], Frame]]:
    dataset, keys = group["data"], np.ravel(group["image_key"][()])
    if len(dataset.shape) != 3 or dataset.shape[0] != keys.size or not set(np.unique(keys)) <= {0, 1, 2, 3}:
        raise ReadError(
            f"{path}: an NXtomo of {dataset.shape} with {keys.size} image keys {np.unique(keys).tolist()[:8]}, expected "
            "(frames, Y, X) and one key of 0 to 3 each; repair it, or name the dataset with ext"
        )
    observation = hdf_layouts.nexus_observation(path, file, group)

    def make(key: int) -> Frame:
        rows = np.flatnonzero(keys == key)
        scan = hdf_layouts.nexus_scan(path, file, group, rows) if key == 0 else None
        return _frame(_lazy(path, dataset, rows), "TYX" if key else "AYX", hdf_layouts.unit(dataset), observation, scan)

    names = {"data": 0, "white": 1, "dark": 2}
    return {name: lambda key=key: make(key) for name, key in names.items() if key in keys}  # type: ignore[misc]


def _plain(path: Path, dataset: Any) -> Frame:
    data = _lazy(path, dataset)
    if data.ndim not in PLAIN_AXES:
        raise ReadError(f"{path}: {dataset.name} has {data.ndim} axes, expected 2 to 5")
    unit = hdf_layouts.unit(dataset) if "units" in dataset.attrs else Unit.ARBITRARY
    return _frame(data, PLAIN_AXES[data.ndim], unit, Observation(header=hdf_layouts.Header("plain"), source=str(path)))


def _images(file: Any) -> list[str]:
    """Paths of the datasets that could be images."""
    found: list[str] = []

    def look(name: str, node: Any) -> None:
        if hasattr(node, "shape") and len(node.shape or ()) >= 2 and node.dtype.kind in "fiub" and node.size > 1:
            found.append(name)

    file.visititems(look)
    return found


def _described(path: Path, file: Any) -> Frame:
    group = file[OURS]
    name = "exchange/data" if "data" not in group else f"{OURS}/data"
    arrays: dict[str, Any] = {
        m: _lazy(path, group[m]) if m == "std" or group[m].nbytes > BLOCK_BYTES else _map(path, group[m])
        for m in describe.MAPS
        if m in group
    }
    text = hdf_layouts.text(group["description"]) or ""
    return describe.attach(_lazy(path, file[name]), text, arrays, header=hdf_layouts.Header(OURS), source=str(path))


def _map(path: Path, dataset: Any) -> Array:
    _load_filters(path, dataset)
    return np.asarray(dataset[()])


def create(
    path: Path,
    like: Frame,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    std: bool,
    *,
    storage: Storage,
    partial: Partial,
) -> Format:
    """A writer of one HDF5 file: Data Exchange for a Scan of axes AYX, /firstlight/data for any other frame.

    White and dark fields and /measurement of the exchange file that `like` came from are copied while data are raw counts
    of the same detector area; where they are left out, /exchange has an attribute `omitted` that says why.
    """
    from firstlight.io.hdf_write import SectionsWriter, Writer

    if 0 in shape or dtype.kind not in "fiub":
        raise WriteError(f"{path}: {shape} of {dtype}, expected at least one pixel of real numbers")
    if isinstance(like.geometry, Scan) and like.axes == "AYX" and shape[0] != like.geometry.angles.size:
        raise WriteError(
            f"{path}: {shape[0]} projections but {like.geometry.angles.size} angles; crop the frame, not the shape"
        )
    if storage.levels is not None:
        raise WriteError(f"{path}: HDF5 holds one level; leave levels out or choose .zarr")
    return (Writer if partial.journal is None else SectionsWriter)(partial, like, shape, dtype, std, storage)
