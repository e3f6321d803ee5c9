# Everything that the build downloads goes through the proxy. 95-clean.sh takes it away again: an image knows no proxy.
if [[ -z ${PROXY} ]]; then exit 0; fi

printf 'Acquire::http::Proxy "http://%s";\nAcquire::https::Proxy "http://%s";\n' "${PROXY}" "${PROXY}" \
  > "${ROOT}/etc/apt/apt.conf.d/95imagewright-proxy"
if command -v snap > /dev/null; then
  snap set system proxy.http="http://${PROXY}" proxy.https="http://${PROXY}"
fi
