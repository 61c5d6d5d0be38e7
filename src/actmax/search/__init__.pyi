from .methods import METHODS as METHODS
from .restarts import Found as Found
from .restarts import search as search
from .settings import SearchSettings as SearchSettings
