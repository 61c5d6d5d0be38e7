from .store import Record as Record
from .store import Status as Status
