"""The lakeFS repository as a Dagster resource. A value like ${NAME} is read from the environment when it is needed, so
the stored run keeps the name and not the secret."""

import os
import re
from pathlib import Path

from dagster import Backoff, ConfigurableResource, RetryPolicy
from pydantic import Field

from ..lakefs import Folder, LakeFS, LakeFSError, Settings

# For an asset that talks to the server: once more after 10 s, and after 30. It says itself which failures may pass.
COMES_BACK = RetryPolicy(max_retries=2, delay=10.0, backoff=Backoff.EXPONENTIAL)
_NAME = re.compile(r"\$\{(\w+)\}")


class LakeFSResource(ConfigurableResource):
    """The document's fields. Each may hold ${NAME}."""

    endpoint_url: str = Field(default="", description="like https://lakefs.example.com; empty where there is no server")
    repo: str = Field(default="forklift-data", description="the repository")
    branch: str = Field(default="main", description="the branch whose commits are followed")
    access_key: str = Field(
        default="${LAKEFS_ACCESS_KEY}", description="the key; name a variable, do not write it here"
    )
    secret_key: str = Field(
        default="${LAKEFS_SECRET_KEY}", description="its secret; name a variable, do not write it here"
    )
    prefix: str = Field(default="real_data", description="the folder of the telemetry in the repository")
    fallback_local_path: str = Field(default="", description="a folder that holds the prefix, instead of a server")

    def source(self) -> LakeFS | Folder:
        """The repository, or the local folder where no endpoint is set. Raises LakeFSError for what is not set."""
        endpoint, local = self.expanded("endpoint_url"), self.expanded("fallback_local_path")
        if endpoint:
            return LakeFS(
                Settings(
                    endpoint,
                    self.expanded("repo"),
                    self.expanded("branch"),
                    self.expanded("access_key"),
                    self.expanded("secret_key"),
                )
            )
        if local:
            return Folder(Path(local).expanduser(), self.expanded("prefix").strip("/"))
        raise LakeFSError(
            "The lakefs resource names neither a server nor a folder",
            where="resources: lakefs: config: endpoint_url, fallback_local_path",
            next="Set endpoint_url, or LAKEFS_ENDPOINT; for no server set fallback_local_path.",
        )

    def expanded(self, name: str) -> str:
        """A field with its variables read from the environment."""
        said = str(getattr(self, name))
        missing = [variable for variable in _NAME.findall(said) if variable not in os.environ]
        if missing:
            raise LakeFSError(
                f"The environment variable {missing[0]} is not set",
                where=f"resources: lakefs: config: {name}",
                next=f"Set {missing[0]}, or write another {name}.",
            )
        return _NAME.sub(lambda found: os.environ[found.group(1)], said)


def lakefs_from_environment() -> LakeFSResource:
    """LAKEFS_ENDPOINT and LAKEFS_FALLBACK, where they are set when the resource is used."""
    return LakeFSResource(
        endpoint_url="${LAKEFS_ENDPOINT}" if "LAKEFS_ENDPOINT" in os.environ else "",
        fallback_local_path=os.environ.get("LAKEFS_FALLBACK", ""),
    )
