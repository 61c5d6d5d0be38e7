from .callbacks import JobCallback as JobCallback
from .module import Maximization as Maximization
from .optimizee import Parameterization as Parameterization
from .priors import PRIORS as PRIORS
from .priors import Prior as Prior
