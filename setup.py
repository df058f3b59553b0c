"""Adds conf/ to the wheel, inside the package; everything else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Copy conf/ to offline_cql/conf. An editable installation reads it beside train.py."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "offline_cql" / "conf"
            shutil.rmtree(target, ignore_errors=True)  # build/ may have files of an older tree
            shutil.copytree("conf", target)


setup(cmdclass={"build_py": BuildWithConfigs})
