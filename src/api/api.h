/*
 * api/api.h - the whole API, and its end.
 */
#ifndef CCI_API_API_H
#define CCI_API_API_H

#include "cache.h"
#include "cmd_info.h"
#include "cmd_run.h"
#include "cmd_set.h"
#include "file.h"
#include "fs.h"
#include "fs_copy.h"
#include "fs_path.h"
#include "host.h"
#include "life.h"
#include "listener.h"
#include "new.h"
#include "pull.h"
#include "source.h"
#include "watch.h"
#include "workload.h"

CC_API void cc_shutdown(void)
{
    if (!cci_lib_stop())
        return;
    cci_lib_close_kind(CCI_KIND_INSTANCE, cci_instance_close_handle);
    cci_lib_close_kind(CCI_KIND_SOURCE, cc_instance_source_free);
    cci_lib_close_kind(CCI_KIND_CLIENT, cc_oci_client_free);
    cci_lib_close_kind(CCI_KIND_TOKEN, cc_cancel_token_free);
    cci_lib_wait_idle();
    cci_host_forget();
    cci_lib_drop_table();
}

CC_API uint32_t cc_guest_protocol_version(void)
{
    return CCI_PROTO_VERSION;
}

#endif
