# chomp as an image; runs, data and configs are mounted.
#
#   docker build -t chomp .
#   docker build -t chomp:cuda --build-arg EXTRAS=cuda,hub .
#   docker run --rm -v "$PWD:/data" chomp init
#   docker run --rm -v "$PWD:/data" chomp train quickstart.yaml
#   docker run --rm -v "$PWD:/data" --gpus all chomp:cuda train megalodon-100m.yaml
#
# JAX's CUDA libraries come with the extra `cuda`; the host needs only NVIDIA's driver and container
# toolkit. A stop (`docker stop --time 120`) is heard: the run saves, and --resume latest goes on.

ARG PYTHON=3.12
FROM python:${PYTHON}-slim AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheel .

FROM python:${PYTHON}-slim
ARG EXTRAS=hub
RUN --mount=from=wheel,source=/wheel,target=/wheel \
    pip install --no-cache-dir "$(ls /wheel/*.whl)[${EXTRAS}]"
# The compile cache outlives the container where /data is mounted.
ENV XDG_CACHE_HOME=/data/.cache
WORKDIR /data
ENTRYPOINT ["chomp"]
CMD ["--help"]
