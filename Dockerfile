# The migrations as a one-shot job: docker run IMAGE migrate up
# pg_dump comes from Debian; a server that is newer than it needs the client of apt.postgresql.org for its backups.
FROM python:3.12-slim
RUN apt-get update && apt-get install --yes --no-install-recommends postgresql-client \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/guvnor
COPY pyproject.toml README.md alembic.ini ./
COPY alembic alembic
COPY guvnor guvnor
RUN pip install --no-cache-dir '.[backup,lint]' && rm -rf /opt/guvnor/*
# A named volume that is mounted there takes over its owner.
RUN useradd --system --home-dir /nonexistent guvnor && install --directory --owner guvnor --mode 700 /backups
USER guvnor
ENTRYPOINT ["guvnor"]
CMD ["migrate", "up"]
