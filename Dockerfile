# SPDX-License-Identifier: MIT
# macekit with LAMMPS, from Debian's packages and PyPI alone:
#   docker build -t macekit .
#   docker run --rm -it -v "$PWD:/home/macekit/work" -w /home/macekit/work macekit macekit doctor
# The trainer is in the wheel; add PyTorch by  --build-arg EXTRAS=lmp,train  (several GB).
FROM debian:12-slim AS wheel
ENV MACEKIT_CACHE=/cache
WORKDIR /macekit
COPY cmake cmake
RUN cmake/dependencies.sh system kokkos python wheel
COPY . .
RUN cmake/build.sh macekit_wheel && cmake/wheel.sh

FROM debian:12-slim
ARG EXTRAS=lmp
WORKDIR /opt/macekit
COPY --from=wheel /macekit/build/dist/ wheel/
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv && rm -rf /var/lib/apt/lists/* \
  && python3 -m venv . \
  && bin/pip install --no-cache-dir "$(echo wheel/*.whl)[$EXTRAS]" \
  && rm -r wheel \
  && useradd --create-home macekit
ENV PATH=/opt/macekit/bin:$PATH
USER macekit
WORKDIR /home/macekit
RUN macekit doctor
CMD ["macekit", "--help"]
