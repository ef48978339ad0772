# The migrations as a one-shot job: docker run IMAGE migrate up
# pg_dump comes from Debian; a server that is newer than it needs the client of apt.postgresql.org for its backups.
# To build from a known base: docker build --build-arg BASE=python:3.12-slim@sha256:... .
ARG BASE=python:3.12-slim
FROM ${BASE}
RUN apt-get update && apt-get install --yes --no-install-recommends postgresql-client \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/guvnor
COPY pyproject.toml README.md alembic.ini ./
COPY alembic alembic
COPY guvnor guvnor
RUN pip install --no-cache-dir '.[backup,lint,telemetry]' && rm -rf /opt/guvnor/*
# The number is part of the interface: a mounted password file has to belong to it, and Kubernetes sees only by a
# number that the user is not root. A named volume that is mounted at /backups takes over its owner.
RUN groupadd --gid 10001 guvnor \
    && useradd --uid 10001 --gid 10001 --home-dir /nonexistent --no-create-home guvnor \
    && install --directory --owner 10001 --group 10001 --mode 700 /backups
USER 10001:10001
ENTRYPOINT ["guvnor"]
CMD ["migrate", "up"]
