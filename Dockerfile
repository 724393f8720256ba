# An image in which `make train` and `make test` run: for a CPU, or with DEVICE=cuda for NVIDIA GPUs (docs/scaling.md).
#   docker build --tag rsmclip [--build-arg DEVICE=cuda] .
#   docker run --rm --volume "$PWD/outputs:/rsmclip/outputs" rsmclip      # make train
#   docker run --rm rsmclip make test
FROM python:3.12-slim-bookworm

# The tests of the web page need a browser, and pictures with Chinese and Korean texts a font.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends chromium fonts-noto-cjk make \
    && rm -rf /var/lib/apt/lists/*

# The torch of PyPI is for NVIDIA GPUs. The torch for CPUs has an index of its own, and is 4 GB smaller.
ARG DEVICE=cpu
RUN case "$DEVICE" in \
        cpu) pip config --global set global.extra-index-url https://download.pytorch.org/whl/cpu ;; \
        cuda) ;; \
        *) echo "DEVICE is '$DEVICE', but must be cpu or cuda" >&2; exit 1 ;; \
    esac

WORKDIR /rsmclip
COPY . .
RUN make .venv/.installed-test && rm -rf /root/.cache
ENV PATH=/rsmclip/.venv/bin:$PATH

CMD ["make", "train"]
