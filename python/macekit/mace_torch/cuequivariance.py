# SPDX-License-Identifier: MIT
def to_e3nn(root, state):
    pass
