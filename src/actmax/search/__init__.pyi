from .methods import METHODS as METHODS
from .methods import SearchSettings as SearchSettings
from .restarts import Found as Found
from .restarts import search as search
