# Snaps, which the store signs. SNAPS is one word a snap: NAME=CHANNEL, with `:off` behind it for one whose services
# wait to be configured.
read -r -a wanted <<< "${SNAPS}"
if [[ ${#wanted[@]} -eq 0 ]]; then exit 0; fi

if [[ -n ${SNAP_PROXY} ]]; then
  # A Snap Store Proxy tells its identity in a signed assertion, which snapd checks.
  assertion=${WORK}/store.assert
  download "${SNAP_PROXY%/}/v2/auth/store/assertions" "${assertion}"
  snap ack "${assertion}"
  store=$(sed --quiet 's/^store: *//p' "${assertion}" | head --lines=1)
  if [[ -z ${store} ]]; then
    echo "${SNAP_PROXY} tells no store" >&2
    exit 1
  fi
  snap set core proxy.store="${store}"
fi
snap wait system seed.loaded
for word in "${wanted[@]}"; do
  snap=${word%:off}
  snap install "${snap%%=*}" --channel="${snap#*=}"
  if [[ ${word} == *:off ]]; then snap stop --disable "${snap%%=*}"; fi
done
