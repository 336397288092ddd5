# The gateway, the agent and the commands, in one image: `moorage serve`, `moorage agent`, `moorage ps`.
FROM python:3.13-slim AS build
WORKDIR /src
COPY requirements.lock pyproject.toml README.md LICENSE ./
RUN python -m venv /opt/moorage \
 && /opt/moorage/bin/pip install --quiet --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.lock \
 && /opt/moorage/bin/pip install --quiet --no-cache-dir --disable-pip-version-check hatchling
COPY gateway gateway
RUN /opt/moorage/bin/pip install --quiet --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation . \
 && /opt/moorage/bin/pip uninstall --quiet --yes --disable-pip-version-check hatchling pip

FROM python:3.13-slim
COPY --from=build /opt/moorage /opt/moorage
COPY scripts/entrypoint /usr/local/bin/entrypoint
RUN mkdir -p /var/lib/moorage && chown 10001:10001 /var/lib/moorage
ENV PATH=/opt/moorage/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
VOLUME /var/lib/moorage
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/entrypoint"]
CMD ["moorage", "serve", "-c", "/etc/moorage/moorage.toml"]
