"""The search for a layer and a penalty per target, in the space of sounds.

All that ridge regression needs of a layer is its Gram matrix. The nested folds share their training
sets in pairs, one eigendecomposition serves every penalty and every target, and what is left are
matrix products.
"""

import torch

__all__ = ["NestedSearch"]

ALPHA_LIMITS = (1e-49, 1e50)  # how far the published search may go beyond its grid

# Grid points whose single-precision score comes this close to the best are compared again in double
# precision. Single precision was measured to be off by at most 2e-7.
_SCREENING_MARGIN = 1e-5
# Directions of a Gram matrix with less than this share of the largest eigenvalue are rounding.
_NULL = 1e-10
# A penalty beyond the grid must improve the score by more than rounding to be taken.
_IMPROVEMENT = 1e-12
# Penalties times targets that are scored in double precision at a time; bounds the memory.
_AT_ONCE = 32_768


class System:
    """Ridge regression with one training set, for every layer, in the eigenbasis of its Gram.

    A prediction for test sounds is ``p @ ((q.T @ y_train) / (eigenvalues + alpha)) + mean``.
    Shapes: L layers, m training sounds, t test sounds, v targets.
    """

    def __init__(self, train: torch.Tensor, test: torch.Tensor, values, q, p):
        self.train, self.test = train, test
        self.values, self.q, self.p = values, q, p  # (L, m), (L, m, m), (L, t, m)

    @classmethod
    def build(cls, grams: torch.Tensor, train: torch.Tensor, tests) -> "list[System]":
        """Systems of one training set for several test sets; one eigendecomposition a layer."""
        k_train = grams[:, train[:, None], train]
        row = k_train.mean(dim=2, keepdim=True)
        total = row.mean(dim=1, keepdim=True)
        values, q = torch.linalg.eigh(k_train - row - row.mT + total)
        values = values.clamp_min(0)
        # Null directions carry no signal; an infinite eigenvalue gives them weight 0.
        null = values <= _NULL * values[:, -1:].clamp_min(torch.finfo(values.dtype).tiny)
        values = values.masked_fill(null, torch.inf)
        systems = []
        for test in tests:
            k_test = grams[:, test[:, None], train]
            centred = k_test - k_test.mean(dim=2, keepdim=True) - row.mT + total
            systems.append(cls(train, test, values, q, centred @ q))
        return systems

    def predict(self, layer: int, y: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        """Predictions of one layer, (t, A, v), for targets (n_sounds, v) and alphas (A, v)."""
        train = y[self.train]
        z = self.q[layer].T @ train
        weighted = z[:, None] / (self.values[layer][:, None, None] + alpha)
        predicted = self.p[layer] @ weighted.flatten(1)
        return predicted.view(-1, *alpha.shape) + train.mean(dim=0)

    def hats(self, alphas: torch.Tensor) -> torch.Tensor:
        """Matrices from training responses to predictions, single precision.

        Returns
        -------
        tensor of shape (L, A * (t + 1), m)
            The predictions under each penalty, and below them the sum over the test sounds of
            each: what a pooled correlation needs besides the predictions themselves.
        """
        weighted = self.p[:, None] / (self.values[:, None, None, :] + alphas[:, None, None])
        hats = weighted @ self.q.mT[:, None] + 1 / len(self.train)
        flat = torch.cat([hats.flatten(1, 2), hats.sum(dim=2)], dim=1)
        return flat.float()


class NestedSearch:
    """Everything about the features and folds that all targets share.

    Shapes: L layers, A penalties, F folds, v targets.
    """

    def __init__(self, grams: torch.Tensor, fold_of: torch.Tensor, alphas: list, greedy: bool):
        self.n_layers, self.greedy = len(grams), greedy
        self.alphas = torch.tensor(alphas, dtype=torch.float64, device=grams.device)
        self.rows = [torch.nonzero(fold_of == k)[:, 0] for k in range(int(fold_of.max()) + 1)]
        self.n_folds = len(self.rows)
        self.outer = [
            System.build(grams, torch.nonzero(fold_of != k)[:, 0], [self.rows[k]])[0]
            for k in range(self.n_folds)
        ]
        # Training without folds i and j serves outer fold i (it predicts j) and outer fold j
        # (it predicts i): F(F-1)/2 decompositions instead of F(F-1).
        self.inner: dict[int, list[System]] = {k: [] for k in range(self.n_folds)}
        for i in range(self.n_folds):
            for j in range(i + 1, self.n_folds):
                train = torch.nonzero((fold_of != i) & (fold_of != j))[:, 0]
                for_i, for_j = System.build(grams, train, [self.rows[j], self.rows[i]])
                self.inner[i].append(for_i)
                self.inner[j].append(for_j)
        self.hats = {k: [system.hats(self.alphas) for system in self.inner[k]] for k in self.inner}

    def run(self, y: torch.Tensor, n_targets_batch: int) -> dict[str, torch.Tensor]:
        """Choose, refit and predict for standardised targets, (n_sounds, v).

        The whole grid is screened in single precision, in batches of targets. What little is
        left open is decided in double precision, for all targets that share a layer at once.
        """
        prediction = torch.empty_like(y)
        layer = torch.empty(self.n_folds, y.shape[1], dtype=torch.int64, device=y.device)
        alpha = torch.empty(self.n_folds, y.shape[1], dtype=y.dtype, device=y.device)
        score = torch.empty_like(alpha)
        batches = y.float().split(n_targets_batch, dim=1)
        for k, system in enumerate(self.outer):
            screened = torch.cat([self._screen(k, batch) for batch in batches], dim=-1)
            layer[k], alpha[k], score[k] = self._choose(k, y, screened)
            for index in layer[k].unique().tolist():
                voxels = torch.nonzero(layer[k] == index)[:, 0]
                predicted = system.predict(index, y[:, voxels], alpha[k, voxels][None])
                prediction[self.rows[k][:, None], voxels] = predicted[:, 0]
        return {"prediction": prediction, "layer": layer, "alpha": alpha, "inner_score": score}

    def _screen(self, k: int, y: torch.Tensor) -> torch.Tensor:
        """Score of the whole grid for outer fold ``k``, in single precision, (A, L, v)."""
        n_alphas, n_targets = len(self.alphas), y.shape[1]
        sums = y.new_zeros(3, n_alphas, self.n_layers, n_targets)
        for system, hats in zip(self.inner[k], self.hats[k], strict=True):
            y_train, y_test = y[system.train], y[system.test]
            n_predicted = n_alphas * len(system.test)
            for layer in range(self.n_layers):
                out = hats[layer] @ y_train
                predicted = out[:n_predicted].view(n_alphas, -1, n_targets)
                sums[0, :, layer] += out[n_predicted:]
                sums[2, :, layer] += (predicted * y_test).sum(dim=1)
                sums[1, :, layer] += predicted.square_().sum(dim=1)
        y_pooled = torch.cat([y[system.test] for system in self.inner[k]])
        return _squared_correlation(*sums, y_pooled)

    def _choose(self, k: int, y: torch.Tensor, screened: torch.Tensor):
        """Layer, penalty and score of each target for outer fold ``k``, in double precision."""
        contested = screened >= screened.amax(dim=(0, 1)) - _SCREENING_MARGIN
        scores = y.new_full(contested.shape, -1.0)
        for step, layer in torch.nonzero(contested.any(dim=2)).tolist():
            voxels = torch.nonzero(contested[step, layer])[:, 0]
            alphas = self.alphas[step].expand(1, len(voxels))
            scores[step, layer, voxels] = self._score(k, layer, y[:, voxels], alphas)[0]
        # The published search runs over penalties first and keeps the first of equals.
        flat = scores.flatten(0, 1)
        score = flat.amax(dim=0)
        order = torch.arange(len(flat), 0, -1, device=y.device)[:, None]
        first = ((flat == score) * order).argmax(dim=0)
        layer, alpha = first % self.n_layers, self.alphas[first // self.n_layers]
        if self.greedy:
            for edge, factor in ((self.alphas.min(), 0.5), (self.alphas.max(), 2.0)):
                at_edge = alpha == edge
                for index in layer[at_edge].unique().tolist():
                    voxels = torch.nonzero(at_edge & (layer == index))[:, 0]
                    alpha[voxels], score[voxels] = self._extend(
                        k, index, y[:, voxels], alpha[voxels], score[voxels], factor
                    )
        return layer, alpha, score

    def _extend(self, k: int, layer: int, y, alpha, score, factor: float):
        """Follow the penalty beyond the grid for as long as each step improves the score."""
        alpha, score = alpha.clone(), score.clone()
        active = torch.arange(y.shape[1], device=y.device)
        n_steps = 2
        while len(active):
            steps = factor ** torch.arange(1, n_steps + 1, device=y.device, dtype=y.dtype)
            tried = alpha[active] * steps[:, None]
            reached = self._score(k, layer, y[:, active], tried)
            before = torch.cat([score[active][None], reached[:-1]])
            better = (reached > before * (1 + _IMPROVEMENT)) & (tried >= ALPHA_LIMITS[0])
            better &= tried <= ALPHA_LIMITS[1]
            n_better = better.long().cumprod(dim=0).sum(dim=0)
            moved = torch.nonzero(n_better)[:, 0]
            last = n_better[moved] - 1
            alpha[active[moved]] = tried[last, moved]
            score[active[moved]] = reached[last, moved]
            active = active[n_better == n_steps]
            n_steps = min(2 * n_steps, 16)
        return alpha, score

    def _score(self, k: int, layer: int, y: torch.Tensor, alphas: torch.Tensor) -> torch.Tensor:
        """Cross-validated score of one layer for outer fold ``k``, (A, v), in double precision."""
        if alphas.numel() > _AT_ONCE and alphas.shape[1] > 1:
            halves = zip(y.chunk(2, dim=1), alphas.chunk(2, dim=1), strict=True)
            return torch.cat([self._score(k, layer, *half) for half in halves], dim=1)
        sums = y.new_zeros(3, *alphas.shape)
        for system in self.inner[k]:
            predicted = system.predict(layer, y, alphas)
            sums[0] += predicted.sum(dim=0)
            sums[2] += (predicted * y[system.test][:, None]).sum(dim=0)
            sums[1] += predicted.square_().sum(dim=0)
        y_pooled = torch.cat([y[system.test] for system in self.inner[k]])
        return _squared_correlation(*sums, y_pooled)


def _squared_correlation(
    s1: torch.Tensor, s2: torch.Tensor, s3: torch.Tensor, y: torch.Tensor
) -> torch.Tensor:
    """Squared Pearson correlation from sums of p, p² and p·y (..., v); 0 where r < 0 or p is flat.

    The published code gives NaN for a flat prediction, and NaN would win its argmax.
    """
    n = len(y)
    covariance = (s3 - s1 * (y.sum(dim=0) / n)).clamp_min(0)
    spread = s2 - s1.square() / n
    flat = spread <= 1e-6 * s2 if y.dtype == torch.float32 else spread <= 1e-13 * s2
    r2 = covariance.square() / (spread * y.var(dim=0, correction=0) * n)
    return r2.masked_fill(flat, 0.0)
