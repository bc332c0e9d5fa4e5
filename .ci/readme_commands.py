"""Print the first command block of README.md that runs the program named on the command line."""

import re
import sys
from pathlib import Path

readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
blocks = re.findall(r"^```bash\n(.*?)^```", readme, flags=re.MULTILINE | re.DOTALL)
print(next(block for block in blocks if "venv" in block and sys.argv[1] in block))
