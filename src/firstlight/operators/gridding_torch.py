"""The gridding engine in torch, for a GPU: the same tables, kernel and conventions, all taps of a scan as one sparse matrix.

A slice is real, so half of its spectrum is spread and the other half follows. The matrix (cells x samples) times a block
(samples x slices) shares each weight among the slices; its transpose is stored by rows as well, since a transposed product
would need atomic additions. Torch is imported at the top: import this file inside functions only.
"""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from firstlight.errors import FrameError
from firstlight.operators.gridding import Gridding
from firstlight.operators.kernel import OVER, WIDTH

__all__ = ["TorchGridding", "device_of"]

Array = NDArray[Any]
SLICES = 32  # most slices at a time: more share no more of a weight, and push the grids out of a GPU's cache
HOST = 1 << 30  # bytes of a batch where the device is the processor
LARGEST = 2**31 - 1  # entries of a matrix with 32-bit indices


def device_of(name: str) -> torch.device:
    """The device of "torch" (torch on the processor), "cuda" or "cuda:0"; raises FrameError where it is not there."""
    if name == "torch":
        return torch.device("cpu")
    kind, _, index = name.partition(":")
    if kind != "cuda" or (index and not index.isdecimal()):
        raise FrameError(f'device {name!r}: expected cpu (no torch), torch (torch on the processor), cuda or "cuda:0"')
    if not torch.cuda.is_available():
        raise FrameError(f"device {name!r}: torch {torch.__version__} sees no CUDA; install torch for CUDA, or use cpu")
    if int(index or 0) >= torch.cuda.device_count():
        raise FrameError(f"device {name!r}: torch sees {torch.cuda.device_count()} of them, counted from 0; give one of those")
    return torch.device(name)


class TorchGridding:
    """`adjoint` and `forward` of a Gridding on a torch device, equal to 1e-5 of the maximum.

    NumPy arrays in, NumPy arrays out; tensors in, tensors on the device out. device: as `device_of` reads it. memory [bytes]
    bounds a batch of slices beside the matrices (half of what is free on a GPU by default); one slice is the least.
    """

    def __init__(self, grid: Gridding, device: str = "torch", *, memory: float | None = None) -> None:
        self.grid, self.device = grid, device_of(device)
        if self.samples * WIDTH**2 > LARGEST:
            raise FrameError(f"gridding: {self.samples} samples are too many for a matrix on {device}; use device cpu")
        self._memory = memory
        self._correction = torch.from_numpy(grid._correction).to(self.device)
        self._at = (torch.arange(grid.size, device=self.device) - grid.size // 2) % grid.side
        self._mirror = -torch.arange(grid.side, device=self.device) % grid.side

    @property
    def samples(self) -> int:
        """Samples of half the spectrum of all projections."""
        return self.grid.angles.size * (self.grid.width // 2 + 1)

    def bytes_per_slice(self) -> int:
        """Memory [bytes] that each slice of a batch takes at the most."""
        return 4 * (2 * self.grid.angles.size * self.grid.width + 4 * self.samples + 10 * self.grid.side**2)

    def adjoint(self, sinograms: Any, response: Array, *, turns: Array | None = None, edge: int = 0) -> Any:
        """Images (S, size, size), float32, of sinograms (A, S, X); arguments and errors as of Gridding.adjoint."""
        angles, columns, shape = self.grid.angles.size, self.grid.columns, tuple(sinograms.shape)
        if len(shape) != 3 or (shape[0], shape[2]) != (angles, columns):
            raise FrameError(f"gridding: sinograms of shape {shape}, expected ({angles} angles, slices, {columns} columns)")
        waves = torch.from_numpy(np.asarray(response)).to(self.device)
        parts = self._parts(sinograms.shape[1])
        found = [self._adjoint(self._here(sinograms[:, part]), waves, _at(turns, part), edge) for part in parts]
        return self._back(found, sinograms, 0)

    def forward(self, images: Any, response: Array, *, turns: Array | None = None) -> Any:
        """Line integrals (A, S, X), float32, of images (S, size, size); arguments and errors as of Gridding.forward."""
        size = self.grid.size
        if len(images.shape) != 3 or tuple(images.shape[1:]) != (size, size):
            raise FrameError(f"gridding: images of shape {tuple(images.shape)}, expected (slices, {size}, {size})")
        waves = torch.from_numpy(np.asarray(response)).to(self.device)
        found = [self._forward(self._here(images[part]), waves, _at(turns, part)) for part in self._parts(images.shape[0])]
        return self._back(found, images, 1)

    def _adjoint(self, p: Tensor, waves: Tensor, turns: Array | None, edge: int) -> Tensor:
        if not bool(torch.isfinite(p).all()):
            raise FrameError("gridding: the sinogram is not finite; replace what is not, or flag and floor it before")
        side = self.grid.side
        z = torch.fft.rfft(self._padded(p, edge), dim=2)
        z *= self._shift(turns, 1)
        z *= waves[:, None]
        z[..., 0] *= 0.5  # its mirror is itself
        cells = self._spread @ self._lanes(z.permute(0, 2, 1))
        half = torch.view_as_complex(cells.view(side, side, -1, 2))
        mirrored = half[self._mirror][:, self._mirror[: side // 2 + 1]].conj()
        whole = (half[:, : side // 2 + 1] + mirrored).permute(2, 0, 1)
        images: Tensor = torch.fft.irfft2(whole, s=(side, side), norm="forward")
        return images[:, self._at][:, :, self._at] * (self._correction[:, None] * self._correction)

    def _forward(self, f: Tensor, waves: Tensor, turns: Array | None) -> Tensor:
        side, width = self.grid.side, self.grid.width
        cells = torch.zeros((f.shape[0], side, side), device=self.device)
        cells[:, self._at[:, None], self._at] = f * (self._correction[:, None] * self._correction)
        spectrum = torch.fft.fft2(cells).permute(1, 2, 0)
        taken = self._gather @ self._lanes(spectrum)
        z = torch.view_as_complex(taken.view(self.grid.angles.size, width // 2 + 1, -1, 2)).permute(0, 2, 1)
        z = z * waves.conj()[:, None] * self._shift(turns, -1)
        z[..., -1] *= 2  # both ends of the spectrum fall on one sample
        rows: Tensor = torch.fft.irfft(z, n=width, dim=2, norm="forward")
        return rows[..., : self.grid.columns]

    def _lanes(self, z: Tensor) -> Tensor:
        """Complex (.., .., S) as real rows (.. * .., 2 S)."""
        z = z.contiguous()
        return torch.view_as_real(z).view(z.shape[0] * z.shape[1], -1)

    def _padded(self, p: Tensor, edge: int) -> Tensor:
        """Rows of `width` samples; the means of `edge` columns at either end, faded into each other halfway round, or zeros."""
        columns, gap = self.grid.columns, self.grid.width - self.grid.columns
        out = torch.zeros((*p.shape[:2], self.grid.width), device=self.device)
        out[..., :columns] = p
        if edge:
            t = torch.arange(gap, device=self.device) / gap
            fade = 0.5 + 0.5 * torch.cos(2 * torch.pi * (torch.clamp(t, 0.25, 0.75) - 0.25))
            fade[-1] = 0
            left, right = (part.mean(2, keepdim=True) for part in (p[..., :edge], p[..., -edge:]))
            out[..., columns:] = fade * right + (1 - fade) * left
        return out

    def _shift(self, turns: Array | None, sign: int) -> Any:
        """exp(2 pi i m turns) (S, width / 2 + 1): a shift of its own for each slice; real at the end of the spectrum."""
        if turns is None:
            return 1
        turned = np.exp(sign * 2j * np.pi * np.arange(self.grid.width // 2 + 1) * turns[:, None])
        turned[:, -1] = turned[:, -1].real
        return torch.from_numpy(turned.astype(np.complex64)).to(self.device)

    def _taps(self) -> tuple[Tensor, Tensor]:
        """Cells (samples, 16) and weights of each sample's taps; positions in double precision, as in the compiled loops."""
        grid, axis = self.grid, torch.arange(WIDTH, device=self.device)
        table = torch.from_numpy(grid._table).view(-1, WIDTH).to(self.device)
        m = torch.arange(grid.width // 2 + 1, device=self.device, dtype=torch.float64)
        cells, weights = [], []
        for unit in (grid._sin, grid._cos):
            step = torch.from_numpy(unit * grid.side / grid.width).to(self.device)
            at = (step[:, None] * m).reshape(-1) + grid.side
            below = at.floor().long()
            weights.append(table[((at - below) * OVER + 0.5).long()])
            cells.append((below[:, None] - 1 + axis + grid.side // 2) % grid.side)
        flat = (cells[0][:, :, None] * grid.side + cells[1][:, None, :]).int()
        return flat.reshape(-1), (weights[0][:, :, None] * weights[1][:, None, :]).reshape(-1)

    @cached_property
    def _gather(self) -> Tensor:
        """(samples, cells): what `forward` reads."""
        cells, weights = self._taps()
        start = torch.arange(self.samples + 1, device=self.device, dtype=torch.int32) * WIDTH**2
        return _sparse(start, cells, weights, (self.samples, self.grid.side**2))

    @cached_property
    def _spread(self) -> Tensor:
        """(cells, samples): what `adjoint` adds."""
        cells, weights = self._taps()
        order = torch.sort(cells, stable=True).indices
        start = torch.zeros(self.grid.side**2 + 1, dtype=torch.int32, device=self.device)
        start[1:] = torch.cumsum(torch.bincount(cells, minlength=self.grid.side**2), 0)
        samples = torch.div(order, WIDTH**2, rounding_mode="floor").int()
        return _sparse(start, samples, weights[order], (self.grid.side**2, self.samples))

    def _parts(self, slices: int) -> list[slice]:
        memory = self._memory
        if memory is None:
            memory = torch.cuda.mem_get_info(self.device)[0] / 2 if self.device.type == "cuda" else HOST
        step = max(1, min(SLICES, int(memory // self.bytes_per_slice())))
        return [slice(i, min(i + step, slices)) for i in range(0, slices, step)]

    def _here(self, part: Any) -> Tensor:
        tensor = part if isinstance(part, Tensor) else torch.from_numpy(np.require(part, np.float32, ["C", "W"]))
        return tensor.to(self.device, torch.float32)

    def _back(self, parts: list[Tensor], like: Any, axis: int) -> Any:
        if isinstance(like, Tensor):
            return torch.cat(parts, axis)
        return np.concatenate([part.cpu().numpy() for part in parts], axis)


def _sparse(start: Tensor, columns: Tensor, weights: Tensor, shape: tuple[int, int]) -> Tensor:
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # torch calls the layout a beta
        return torch.sparse_csr_tensor(start, columns, weights, size=shape, check_invariants=False)


def _at(turns: Array | None, part: slice) -> Array | None:
    return None if turns is None else np.asarray(turns, dtype=np.float64)[part]
