"""What test_cloud_config.py lays out: clouds.yaml as people write it, and what surrounds it."""

import json

AUTH = """
      auth_url: https://keystone.example:5000/v3
      username: u
      password: p
      project_name: proj
      user_domain_name: UD
      project_domain_name: PD
"""

ENV = {
    "OS_AUTH_URL": "https://env.example/v3",
    "OS_USERNAME": "eu",
    "OS_PASSWORD": "ep",
    "OS_PROJECT_NAME": "eproj",
    "OS_USER_DOMAIN_NAME": "Default",
    "OS_PROJECT_DOMAIN_ID": "default",
}


def cloud(text: str = "", auth: str = AUTH) -> str:
    """A clouds.yaml with one cloud `c`; `text` are further keys of it, at two spaces."""
    return f"clouds:\n  c:\n    auth:{auth}" + "".join(f"    {line}\n" for line in text.splitlines())


# name -> (files, environment, cloud). Files are relative to a folder that holds `home` and `cwd`.
CASES = {
    "password with names": ({"cwd/clouds.yaml": cloud()}, {}, "c"),
    "ids": (
        {
            "cwd/clouds.yaml": cloud(
                auth=" {auth_url: 'https://k/identity', user_id: 12e4, password: 0123x, project_id: 3e, domain_id: d}\n"
            )
        },
        {},
        "c",
    ),
    "tenant name and one domain": (
        {
            "cwd/clouds.yaml": cloud(
                auth=" {auth_url: 'https://k:5000/', username: u, password: p, tenant_name: t, domain_name: D}\n"
            )
        },
        {},
        "c",
    ),
    "project beats tenant": (
        {"cwd/clouds.yaml": cloud(auth=AUTH + "      tenant_name: old\n      domain_id: d9\n")},
        {},
        "c",
    ),
    "default domain": (
        {
            "cwd/clouds.yaml": cloud(
                "auth_type: password\n",
                auth=" {auth_url: 'https://k/v3', username: u, password: p, user_domain_id: a, "
                "project_domain_name: b, project_name: q, default_domain_id: d}\n",
            )
        },
        {},
        "c",
    ),
    "domain scope": (
        {
            "cwd/clouds.yaml": cloud(
                auth=" {auth_url: 'https://k/v3', username: u, password: p, user_domain_id: a, domain_name: D}\n"
            )
        },
        {},
        "c",
    ),
    "v3password and dashes": (
        {
            "cwd/clouds.yaml": cloud(
                "auth_type: v3password\nregion-name: R\nendpoint_type: internalURL\n",
                auth=" {auth-url: 'https://k/v3', username: u, password: p, user-domain-name: a, project-id: x}\n",
            )
        },
        {},
        "c",
    ),
    "values beside auth": (
        {"cwd/clouds.yaml": cloud("project_name: beside\nusername: ignored\nuser_domain_name: beside\n")},
        {},
        "c",
    ),
    "application credential by id": (
        {
            "cwd/clouds.yaml": cloud(
                "auth_type: v3applicationcredential\n",
                auth=" {auth_url: 'https://k/v3', application_credential_id: i, application_credential_secret: s}\n",
            )
        },
        {},
        "c",
    ),
    "application credential by name": (
        {
            "cwd/clouds.yaml": cloud(
                "auth_type: v3applicationcredential\n",
                auth=" {auth_url: 'https://k/v3', application_credential_name: n, application_credential_secret: s, "
                "username: u, user_domain_name: D}\n",
            )
        },
        {},
        "c",
    ),
    "token": (
        {
            "cwd/clouds.yaml": cloud(
                "auth_type: token\n",
                auth=" {auth_url: 'https://k/v3', token: t, project_name: p, project_domain_name: D}\n",
            )
        },
        {},
        "c",
    ),
    "v3token, named auth_token": (
        {
            "cwd/clouds.yaml": cloud(
                "auth_type: v3token\n", auth=" {auth_url: 'https://k/v3', auth_token: t, project_id: p}\n"
            )
        },
        {},
        "c",
    ),
    "secure.yaml lies over": (
        {
            "cwd/clouds.yaml": cloud("region_name: R\nverify: no\n").replace("      password: p\n", ""),
            "home/.config/openstack/secure.yaml": "clouds: {c: {auth: {password: hidden}, cacert: /s/ca.pem}, "
            "only-secure: {auth: {auth_url: 'https://x'}}}",
        },
        {},
        "c",
    ),
    "OS_CLIENT_SECURE_FILE": (
        {"cwd/clouds.yaml": cloud(), "cwd/other.json": '{"clouds": {"c": {"auth": {"password": "j"}}}}'},
        {"OS_CLIENT_SECURE_FILE": "other.json"},
        "c",
    ),
    "home before nothing": ({"home/.config/openstack/clouds.yml": cloud("region_name: yml\n")}, {}, "c"),
    "cwd before home": (
        {
            "home/.config/openstack/clouds.yaml": cloud("region_name: home\n"),
            "cwd/clouds.yml": cloud("region_name: cwd\n"),
        },
        {},
        "c",
    ),
    "yaml before json": (
        {
            "cwd/clouds.json": '{"clouds": {"c": {}}}',
            "cwd/clouds.yaml": cloud("region_name: yaml\n"),
        },
        {},
        "c",
    ),
    "json": (
        {
            "cwd/clouds.json": json.dumps(
                {
                    "clouds": {
                        "c": {
                            "auth": {
                                "auth_url": "https://k/v3",
                                "username": "ü",
                                "password": 123,
                                "user_domain_id": "d",
                            },
                            "verify": False,
                        }
                    }
                },
                indent="\t",
            )
        },
        {},
        "c",
    ),
    "OS_CLIENT_CONFIG_FILE": (
        {"cwd/clouds.yaml": cloud("region_name: cwd\n"), "elsewhere/my.yaml": cloud("region_name: my\n")},
        {"OS_CLIENT_CONFIG_FILE": "../elsewhere/my.yaml"},
        "c",
    ),
    "OS_CLIENT_CONFIG_FILE that is not there": (
        {"cwd/clouds.yaml": cloud("region_name: cwd\n")},
        {"OS_CLIENT_CONFIG_FILE": "/nonexistent/clouds.yaml"},
        "c",
    ),
    "XDG_CONFIG_HOME": (
        {
            "xdg/openstack/clouds.yaml": cloud("region_name: xdg\n"),
            "home/.config/openstack/clouds.yaml": cloud("region_name: home\n"),
        },
        {"XDG_CONFIG_HOME": "{root}/xdg"},
        "c",
    ),
    "environment alone": (
        {},
        ENV | {"OS_REGION_NAME": "E", "OS_CACERT": "~/ca.pem", "OS_INTERFACE": "admin"},
        "envvars",
    ),
    "environment with another name": ({}, ENV | {"OS_CLOUD_NAME": "mine", "OS_INSECURE": "true"}, "mine"),
    "environment beside a file": ({"cwd/clouds.yaml": cloud("region_name: R\n")}, ENV | {"OS_REGION_NAME": "E"}, "c"),
    "environment, application credential": (
        {},
        {
            "OS_AUTH_TYPE": "v3applicationcredential",
            "OS_AUTH_URL": "https://env/identity/v3/",
            "OS_APPLICATION_CREDENTIAL_ID": "i",
            "OS_APPLICATION_CREDENTIAL_SECRET": "s",
            "OS_IMAGE_ENDPOINT_OVERRIDE": "https://glance.example/v2",
            "OS_ENDPOINT_TYPE": "publicURL",
        },
        "envvars",
    ),
    "regions": (
        {
            "cwd/clouds.yaml": cloud(
                "region_name: Z\nregions:\n- name: A\n  values: {image_endpoint_override: 'https://a/v2', "
                "auth: {project_name: pa}}\n- B\n"
            )
        },
        {},
        "c",
    ),
    "regions as a list of names": ({"cwd/clouds.yaml": cloud("regions: [A, B]\n")}, {}, "c"),
    "region_name as a list": ({"cwd/clouds.yaml": cloud("region_name: [A, B]\n")}, {}, "c"),
    "region_name with commas": ({"cwd/clouds.yaml": cloud("region_name: A,B\n")}, {}, "c"),
    "profile": (
        {
            "cwd/clouds.yaml": "clouds: {c: {profile: v, auth: {username: u, password: p, project_name: q, "
            "user_domain_id: x}, verify: true}}",
            "home/.config/openstack/clouds-public.yaml": "public-clouds: {v: {auth: {auth_url: "
            "'https://{region_name}.v.example/v3', user_domain_id: d, project_domain_id: d}, regions: [r1, r2], "
            "interface: internal, cacert: /v.pem}}",
        },
        {},
        "c",
    ),
    "profile named by cloud, region of our own": (
        {
            "cwd/clouds.yaml": "clouds: {c: {cloud: v, region_name: r9, "
            "auth: {username: u, password: p, project_name: q}}}",
            "cwd/clouds-public.yaml": "public-clouds: {v: {auth: {auth_url: 'https://{region_name}.v.example/v3', "
            "user_domain_id: d, project_domain_id: d}, region_name: r1}}",
        },
        {},
        "c",
    ),
    "profile that nobody knows": (
        {"cwd/clouds.yaml": cloud("profile: nobody\n"), "cwd/clouds-public.yaml": "public-clouds: {}"},
        {},
        "c",
    ),
    "interface beats nothing, endpoint_type beats it": (
        {"cwd/clouds.yaml": cloud("interface: admin\nendpoint_type: internal\n")},
        {},
        "c",
    ),
    "one service is different": (
        {
            "cwd/clouds.yaml": cloud(
                "region_name: R\nimage_interface: internal\nimage_region_name: IR\nimage_endpoint: https://g/image\n"
            )
        },
        {},
        "c",
    ),
    "verify no": ({"cwd/clouds.yaml": cloud("verify: no\ncacert: /ca.pem\n")}, {}, "c"),
    "insecure": ({"cwd/clouds.yaml": cloud("insecure: 'True'\n")}, {}, "c"),
    "verify is a file": ({"cwd/clouds.yaml": cloud("verify: /etc/ca.pem\n")}, {}, "c"),
    "files in the home": (
        {"cwd/clouds.yaml": cloud("verify: True\ncacert: ~/ca.pem\ncert: ~/me.pem\nkey: ~/me.key\n")},
        {},
        "c",
    ),
    "certificate without key": ({"cwd/clouds.yaml": cloud("cert: me.pem\n")}, {}, "c"),
    "merge keys and unknown keys": (
        {
            "cwd/clouds.yaml": "x: &base {auth_url: 'https://k/v3', username: u, user_domain_id: d, project_id: 7}\n"
            "cache: {max_age: 3}\nclouds:\n  c:\n    auth: {<<: *base, password: 'p: #1'}\n    networks: []\n"
            "    floating_ip_source: None\n    volume_api_version: 3\n    whatever: {a: [1]}\n"
        },
        {},
        "c",
    ),
    "numbers": (
        {
            "cwd/clouds.yaml": cloud(
                "identity_api_version: 3\nregion_name: 1\n",
                auth=" {auth_url: 'https://k/v3', username: 42, password: 98765432109876543210987654321, "
                "project_name: 2.5, user_domain_id: 1e9, project_domain_id: default}\n",
            )
        },
        {},
        "c",
    ),
}
