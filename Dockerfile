# docker build -t offline-cql .
# docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" offline-cql train env=hopper cql.alpha=5
# With a GPU: docker run --gpus all …
FROM python:3.11-slim

WORKDIR /opt/offline-cql
COPY pyproject.toml setup.py MANIFEST.in constraints.txt README.md LICENSE ./
COPY conf conf
COPY src src
RUN pip install --no-cache-dir --constraint constraints.txt '.[export,joblib,tensorboard]'

# Any user: what is written has a place that does not need a home. A volume at /cache keeps data.
ENV OFFLINE_CQL_CACHE=/cache/offline_cql \
    MINARI_DATASETS_PATH=/cache/minari \
    MPLCONFIGDIR=/tmp/matplotlib
RUN install --directory --mode=1777 /cache /work
VOLUME /cache
WORKDIR /work
ENTRYPOINT ["offline-cql"]
CMD ["--help"]
