# A mirror takes the place of Ubuntu's servers, in both formats of the list: one line each, and deb822 from 24.04 on.
if [[ -n ${APT_MIRROR} ]]; then
  lists=()
  for list in "${ROOT}"/etc/apt/sources.list "${ROOT}"/etc/apt/sources.list.d/ubuntu.sources; do
    if [[ -f ${list} ]]; then lists+=("${list}"); fi
  done
  if [[ ${#lists[@]} -eq 0 ]]; then
    echo "no list of packages to point at ${APT_MIRROR}" >&2
    exit 1
  fi
  sed --in-place --regexp-extended \
    "s#https?://([a-z0-9-]+\.)*(archive|security|ports)\.ubuntu\.com/(ubuntu-ports|ubuntu)/?#${APT_MIRROR%/}/#g" "${lists[@]}"
fi

# Nobody else may hold the lock of the package system while an image is built.
systemctl stop apt-daily.timer apt-daily-upgrade.timer apt-daily.service apt-daily-upgrade.service unattended-upgrades.service || true
# With Error-Mode=any a list that cannot be fetched is an error, not a warning. focal's apt does not know it and ignores it.
apt-get "${APT[@]}" --option APT::Update::Error-Mode=any update
apt-get "${APT[@]}" upgrade
