# SPDX-License-Identifier: MIT
from setuptools import Distribution, setup


class Binary(Distribution):
    """Its wheels are for one platform: the extension modules are compiled by CMake, not by setuptools."""

    def has_ext_modules(self):
        return True


setup(distclass=Binary)
