# What served the build alone.
rm --force "${ROOT}/etc/apt/apt.conf.d/95imagewright-proxy"
if [[ -n ${PROXY} ]] && command -v snap > /dev/null; then
  snap unset system proxy.http proxy.https
fi
if [[ -n ${SNAP_PROXY} && -n ${SNAPS} ]]; then snap unset core proxy.store; fi
apt-get "${APT[@]}" clean
rm --recursive --force "${ROOT}"/var/lib/apt/lists/*
