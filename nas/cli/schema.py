"""The command `nas schema`."""

import json


def schema() -> None:
    """Print the JSON schema of configurations, for editors that complete and check them."""
    from nas.config.schema import configuration_schema

    print(json.dumps(configuration_schema(), indent=2))
