"""openstacksdk as the predecessor calls it: cloud after cloud, the whole of an upload to each. Runs in the peer's venv.

`peer_sdk.py NAME FILE CLOUD...`
"""

import sys

import openstack


def main(name: str, file: str, clouds: list[str]) -> None:
    for cloud in clouds:
        with openstack.connect(cloud=cloud) as connection:
            connection.create_image(
                name=name, filename=file, allow_duplicates=True, properties={"architecture": "x86_64"}, wait=True
            )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
