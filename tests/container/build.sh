# build.sh FOLDER CONTEXT WHEELS: the image from CONTEXT, and its file system as plain files in FOLDER/root.
# In a mount namespace of its own (unshare --mount): whatever is mounted here is gone with its last process.
set -eu
folder=$1 context=$2 wheels=$3
export BUILDAH_ISOLATION=chroot

own() {
    buildah --root "$folder/storage" --runroot "$folder/run" "$@"
}

base=$(own from scratch)
# With /usr merged, as every base has it by now.
mmdebstrap --quiet --variant=extract --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
    --include=python3,python3-pip bookworm "$(own mount "$base")"
own commit --quiet --rm "$base" localhost/base
own bud --pull-never --volume "$wheels:/wheels:ro" --tag localhost/keyrotd \
    --build-arg BASE=localhost/base --build-arg PIP_NO_INDEX=1 --build-arg PIP_FIND_LINKS=/wheels \
    --file "$context/deploy/container/Containerfile" "$context"
own inspect --type image localhost/keyrotd >"$folder/image.json"
cp -a "$(own mount "$(own from --pull-never localhost/keyrotd)")" "$folder/root"
