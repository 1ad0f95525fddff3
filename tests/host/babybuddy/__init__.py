"""A stand-in for Baby Buddy: its models, migrations, receivers, blocks, URL names and traps, and no more.

It is there so that the tests and the demo run from a fresh clone. Written for this project; where it differs
from Baby Buddy in something that a backup can see, that is a bug of the stand-in.
"""

__version__ = VERSION = "2.10.0"
