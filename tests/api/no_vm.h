/*
 * tests/api/no_vm.h - an instance with no machine, for tests of the API that need no hypervisor.
 *
 * Everything about it is real but the guest: its calls wait for an agent that is not there, or that runs as a process
 * on this host (tests/control/agent.h).
 */
#ifndef TESTS_API_NO_VM_H
#define TESTS_API_NO_VM_H

#include "../../src/api/api.h"
#include "../check.h"

static char no_vm_cache[200];

/* A cache directory of our own, no_vm_cache; no_vm_clean removes it. */
static void no_vm_make_cache(void)
{
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(no_vm_cache, sizeof(no_vm_cache), "%s/cc-api-XXXXXX", tmp ? tmp : "/tmp");
    CHECK(mkdtemp(no_vm_cache));
}

static void no_vm_clean(void)
{
    char command[300];
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", no_vm_cache);
    CHECK(system(command) == 0);
}

/* `ctl` is the connection to an agent, which the instance takes over; NULL: one that never comes. */
static cc_instance no_vm_instance(cc_instance_source source, struct cci_control *ctl)
{
    struct cci_object *o;
    cc_instance h = 0;
    CHECK_EQ_INT(cci_handle_get(source, CCI_KIND_SOURCE, &o, NULL), CC_OK);
    struct cci_instance *i = cci_instance_make(((struct cci_source *)o)->image);
    cci_object_unref(o);
    CHECK(i && cci_vm_begin(&i->vm, NULL) == CC_OK);
    if (ctl) {
        cci_control_unref(i->vm.control);
        i->vm.control = ctl;
    }
    CHECK_EQ_INT(cci_handle_new(&i->object, CCI_KIND_INSTANCE, &h, NULL), CC_OK);
    i->vm.state.instance = h;
    cci_state_set(&i->vm.state, CC_STATE_RUNNING);
    return h;
}

#endif
