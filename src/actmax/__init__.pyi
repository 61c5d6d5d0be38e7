from .api import LanguageModel as LanguageModel
from .api import load as load
from .api import open as open  # noqa: A004
from .api import wrap as wrap
from .errors import InputError as InputError
from .evidence.readings import Verdict as Verdict
from .model.directions import Latent as Latent
from .model.directions import Logit as Logit
from .model.target import Direction as Direction
from .model.target import Unit as Unit
from .stats.groups import compare as compare
from .tasks.result import Result as Result
