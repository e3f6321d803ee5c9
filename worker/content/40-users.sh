# `ubuntu` runs the jobs. `runner` is the same user by another name, with the home that GARM expects; the agent is there
# by both paths. USERS are further users, one word each.
home=${ROOT}/home/ubuntu
getent passwd ubuntu > /dev/null || useradd --create-home --shell /bin/bash ubuntu
for group in docker lxd; do
  getent group "${group}" > /dev/null || groupadd --system "${group}"
  usermod --append --groups "${group}" ubuntu
done
if ! getent passwd runner > /dev/null; then
  useradd --non-unique --uid "$(id --user ubuntu)" --gid "$(id --group ubuntu)" --no-create-home \
    --home-dir /home/runner --shell /bin/bash runner
fi
ln --symbolic --force --no-dereference /home/ubuntu "${ROOT}/home/runner"
read -r -a more <<< "${USERS}"
for user in "${more[@]}"; do
  getent passwd "${user}" > /dev/null || useradd --create-home --shell /bin/bash "${user}"
done
for user in ubuntu runner; do
  printf '%s ALL=(ALL) NOPASSWD:ALL\n' "${user}" > "${ROOT}/etc/sudoers.d/90-imagewright-${user}"
  chmod 440 "${ROOT}/etc/sudoers.d/90-imagewright-${user}"
done
# Services of the user run without a login.
install --directory "${ROOT}/var/lib/systemd/linger"
touch "${ROOT}/var/lib/systemd/linger/ubuntu"
chmod 755 "${home}"
