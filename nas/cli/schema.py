"""The command `nas schema`."""

import json

from nas.config.schema import configuration_schema


def schema() -> None:
    """Print the JSON schema of configurations, for editors that complete and check them."""
    print(json.dumps(configuration_schema(), indent=2))
