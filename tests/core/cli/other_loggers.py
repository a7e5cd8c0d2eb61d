"""Loggers of Lightning's interface that remember what they are given."""

from lightning.pytorch.loggers import Logger


class Remembering(Logger):
    """Remembers hyperparameters and metrics.

    Args:
        title: A name.
        token: A secret.
    """

    made: list = []  # noqa: RUF012

    def __init__(self, title: str = "a", token: str | None = None):
        super().__init__()
        self.title, self.token, self.hyperparameters, self.rows = title, token, [], []
        self.made.append(self)

    @property
    def name(self):
        return self.title

    @property
    def version(self):
        return 0

    def log_hyperparams(self, params, *args, **kwargs):
        self.hyperparameters.append(params)

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, dict(metrics)))


class Showing(Remembering):
    """Shows images and texts as Lightning's WandbLogger does."""

    def __init__(self):
        super().__init__("showing")
        self.shown = []

    def log_image(self, key, images, step=None, **kwargs):
        self.shown.append((key, [image.shape for image in images], step))

    def log_text(self, key, columns=None, data=None, dataframe=None, step=None):
        self.shown.append((key, data, step))


class Refusing(Remembering):
    """Refuses hyperparameters, as MLflow does where a resumed run has another value."""

    def log_hyperparams(self, params, *args, **kwargs):
        raise RuntimeError("Changing param values is not allowed.")
