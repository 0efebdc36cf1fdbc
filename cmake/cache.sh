# For `source`: the folder that outlives builds.
cache=${MACEKIT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/macekit}
