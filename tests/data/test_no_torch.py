import subprocess
import sys
from pathlib import Path

import fairlead.data


def test_only_collate_knows_torch():
    names = [path.stem for path in Path(fairlead.data.__file__).parent.glob("*.py") if path.stem != "collate"]
    assert "chat_template" in names
    code = "".join(f"import fairlead.data.{name}\n" for name in names)
    code += "import sys; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
