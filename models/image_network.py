"""A classifier of images, whatever runs it: what it takes, and what it must give."""

from collections.abc import Callable, Sequence

import numpy as np

from models.errors import ArtifactError, SpecError
from models.postprocess import probabilities
from models.session import Session
from models.spec import ModelSpec

Run = Callable[[np.ndarray], np.ndarray]  # a batch to the first output


class ImageNetwork:
    """A network that takes one batch of images and gives one number for each label.

    Attributes:
        where: The artifact's file, for messages.
        spec: Its own description.
        input: How an image becomes a row of a batch.
        fixed_batch: 1 where the artifact takes no more rows at a time, else None.
    """

    def __init__(
        self,
        where: str,
        spec: ModelSpec,
        inputs: Sequence[tuple[str, Sequence[int | str | None]]],
        run: Run,
    ) -> None:
        """Check that the artifact takes images.

        Args:
            where: The artifact's file.
            spec: Its own description.
            inputs: Names and shapes of the network's inputs; a free dimension is no number.
            run: Gives the first output for a batch.

        Raises:
            SpecError: The network takes no image.
            ArtifactError: It takes something else besides, or a fixed number of several images.
        """
        if spec.input is None:
            raise SpecError(
                f"{where}: takes no image, so it classifies none: its checkpoint was converted "
                "with `--input none`; convert it again with the preset that says how images enter"
            )
        self.where, self.spec, self.input = where, spec, spec.input
        self.fixed_batch = _fixed_batch(where, inputs)
        self._run = run

    @classmethod
    def of_session(cls, session: Session) -> "ImageNetwork":
        """Return the network that onnxruntime runs."""
        inputs = list(zip(session.input_names, session.input_shapes, strict=True))
        return cls(session.where, session.spec, inputs, lambda batch: session.run(batch)[0])

    def probabilities(self, batch: np.ndarray) -> np.ndarray:
        """Return the probability of each class: N x 3 x H x W to N x K.

        N x views x 3 x H x W is N images of several views, such as ten crops. What the last layer
        gives for them is averaged, before any softmax, as fb.resnet.torch adds it up.

        Raises:
            ArtifactError: The network does not take the batch, gives something else than one number
                for each label, or no numbers at all.
        """
        views = batch.shape[1] if batch.ndim == 5 else 1
        output = self._outputs(batch.reshape(-1, *batch.shape[-3:]), self._run)
        kind = self.spec.output
        if views > 1:
            output = output.reshape(len(batch), views, -1).mean(axis=1)
            kind = "logits" if kind == "log_probabilities" else kind  # their mean adds up to less
        with np.errstate(invalid="ignore"):  # infinity less infinity: found right below
            answer = probabilities(output, kind)
        self._check_finite(answer)
        return answer

    def outputs(self, batch: np.ndarray, run: Run) -> np.ndarray:
        """Return what the last layer gives for a batch, N x 3 x H x W to N x K, run by `run`.

        Raises:
            ArtifactError: As for `probabilities`.
        """
        output = self._outputs(batch, run)
        with np.errstate(invalid="ignore"):  # as above; the logarithm of 0 is no fault
            self._check_finite(probabilities(output, self.spec.output))
        return output

    def _check_finite(self, numbers: np.ndarray) -> None:
        if not np.isfinite(numbers).all():
            raise ArtifactError(f"{self.where}: found NaN or infinity among its outputs")

    def _outputs(self, rows: np.ndarray, run: Run) -> np.ndarray:
        if self.fixed_batch is not None and len(rows) > 1:
            singles = [rows[at : at + 1] for at in range(len(rows))]
            return np.concatenate([self._outputs(single, run) for single in singles])
        output = run(rows)
        wanted = (len(rows), len(self.spec.labels))
        if output.shape != wanted:
            raise ArtifactError(
                f"{self.where}: found an output of shape {output.shape}, "
                f"expected {wanted}: one number for each label"
            )
        return output


def _fixed_batch(
    where: str, inputs: Sequence[tuple[str, Sequence[int | str | None]]]
) -> int | None:
    if len(inputs) != 1:
        names = ", ".join(name for name, _ in inputs)
        raise ArtifactError(f"{where}: found the inputs {names}, expected one: the image")
    shape = inputs[0][1]
    fixed = shape[0] if shape else 0
    if not isinstance(fixed, int):  # a name or None: any number of rows
        return None
    if fixed != 1:
        raise ArtifactError(f"{where}: found a batch size of {fixed}, expected 1 or any")
    return 1
