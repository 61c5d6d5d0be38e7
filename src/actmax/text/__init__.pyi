from .files import text_files as text_files
from .windows import Window as Window
from .windows import windows as windows
