"""Writes the manual page, docs/threadfs.1, from the definition of the command line.

    .venv/bin/python docs/make_manual.py          writes it anew
    .venv/bin/python docs/make_manual.py -        to stdout

argparse-manpage knows nothing of examples in an epilog, and takes two lines of usage for one: these are put
right here.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from threadfs import __version__
from threadfs.commands.parser import EPILOG, Parser, whole_parser

PAGE = Path(__file__).with_name("threadfs.1")

_SYNOPSIS = """\
.SH SYNOPSIS
.B threadfs
[\\fIOPTION\\fR...] \\fISTORE\\fR \\fIMNT\\fR
.br
.B threadfs
\\fICOMMAND\\fR [\\fIARGUMENT\\fR...]
"""
_MOUNT_OPTIONS = """\
.SH MOUNT OPTIONS
.TP
.B ro
refuse every change
.TP
.B allow_other
let other users in, as far as the permissions that are shown let them
.TP
.BR uid= ", " gid=
the number or name of the user and of the group that everything is shown to belong to (default: who mounts)
.TP
.B umask=
the permissions that nobody gets, in octal: directories are shown with 0777 without these, documents and
control files with 0666, what is derived with 0444
.TP
.BR fmask= ", " dmask=
the same for files and for directories alone; they win over
.B umask=
.TP
.B noexec
no program in the mount may be started
.TP
.B nowords
keep no words of messages; each search reads all of them
.TP
.B noshim
the kernel keeps no listings, as where threadfs was installed without a C compiler
.TP
.B log=FILE
where to log
"""
_END = """\
.SH FILES
.TP
.I ~/.local/state/threadfs/*.log
what a mount in the background logs ($XDG_STATE_HOME)
.TP
.I ~/.cache/threadfs/
what searches have found out of stores ($XDG_CACHE_HOME); it may be deleted
.TP
.I STORE/.threadfs\\-aside/
what a repair has taken out of a store
.SH SEE ALSO
.BR mount (8),
.BR fusermount3 (1),
.BR fuse (4)
"""


def manual_parser() -> Parser:
    """What argparse-manpage is given: all but what it cannot show."""
    parser = whole_parser()
    parser.epilog = None
    return parser


def page() -> str:
    """The manual page as roff."""
    command = [sys.executable, "-c", "from argparse_manpage.cli import main; main()"]
    command += ["--pyfile", __file__, "--function", "manual_parser"]
    command += ["--prog", "threadfs", "--project-name", f"threadfs {__version__}"]
    command += ["--manual-title", "User Commands", "--format", "single-commands-section"]
    command += ["--description", "mount a store of assistant conversations as files"]
    made = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    # Without a date: it would be another page every day.
    made = re.sub(r'(?m)^(\.TH \S+ "1") "[^"]*"', r'\1 ""', made)
    made = re.sub(r"(?s)\.SH SYNOPSIS\n.*?(?=\.SH )", lambda _: _SYNOPSIS, made)
    examples, _, status = EPILOG.removeprefix("examples:\n").partition("\n\n")
    status = status.removeprefix("Exit status: ")
    made = made.rstrip("\n") + "\n"
    made += f".SH EXAMPLES\n.nf\n{_roff(examples)}\n.fi\n.SH EXIT STATUS\n{_roff(status)}\n"
    return made + _MOUNT_OPTIONS + _END


def _roff(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("-", "\\-").replace("`", "\\(ga")
    return re.sub(r"(?m)^(?=['.])", r"\\&", escaped)


if __name__ == "__main__":
    if sys.argv[1:] == ["-"]:
        print(page(), end="")
    else:
        PAGE.write_text(page())
