/* What the bindings are made of. */
#include <rte_eal.h>
#include <rte_memory.h>
#include <rte_memzone.h>
#include <rte_vfio.h>
