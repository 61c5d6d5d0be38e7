from .encoding import encode as encode
from .lists import Data as Data
from .lists import Reading as Reading
from .lists import read as read
