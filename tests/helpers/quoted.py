"""The commands that documents, docstrings and configs quote."""
import re
from pathlib import Path
from typing import Dict, Iterator, List

ROOT = Path(__file__).resolve().parents[2]
ELSEWHERE = {'.venv', 'work_dirs', 'data', 'node_modules'}
DOCUMENTS = sorted(path for path in ROOT.rglob('*.md')
                   if not ELSEWHERE & set(path.relative_to(ROOT).parts))
SOURCES = sorted(path for folder in ('tools', 'projects', 'configs', 'data_converter')
                 for path in (ROOT / folder).rglob('*.py'))
START = re.compile(r'(?:\w+=\S+ )*(?:python|bash|pytest) [\w./-]')


def name_of(path: Path) -> str:
    """A file's path below the repository's root."""
    return str(path.relative_to(ROOT))


def in_markdown(text: str) -> Iterator[str]:
    """Commands of the shell blocks, one line each, and of code in the text."""
    for block in re.findall(r'```(?:bash|shell|sh|console)\n(.*?)```', text, flags=re.S):
        for line in re.sub(r' *\\\n *', ' ', block).splitlines():
            line = re.sub(r'(^|\s+)#.*', '', line.strip().removeprefix('$ '))
            if line:
                yield line
    for code in re.findall(r'`([^`\n]+)`', re.sub(r'```.*?```', '', text, flags=re.S)):
        if START.match(code):
            yield code


def in_python(text: str) -> Iterator[str]:
    """Commands that stand in a docstring or a comment on lines of their own."""
    text = re.sub(r' *\\\n(?:# )? *', ' ', re.sub(r'(?m)^#(?=  )', '', text))
    for line in re.findall(r'^ {2,4}((?:python|bash) (?:tools|projects)/.*)$', text, flags=re.M):
        yield re.sub(r'\s+#.*', '', line)


def quoted_commands() -> Dict[str, List[str]]:
    """The commands of each file that has some, in their order."""
    found = {name_of(path): list(dict.fromkeys(in_markdown(path.read_text())))
             for path in DOCUMENTS}
    found.update({name_of(path): list(dict.fromkeys(in_python(path.read_text())))
                  for path in SOURCES})
    return {name: commands for name, commands in found.items() if commands}
