import subprocess
import sys


def test_no_torch():
    """The checks run before any weights are loaded."""
    code = "import fairlead.data.audit.terminal, fairlead.data.audit.fatal, fairlead.evaluate.audit_page; import sys; "
    code += "sys.exit('torch' in sys.modules or 'transformers' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
