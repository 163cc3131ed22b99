/* What bindgen reads: the same headers that engines of fio's own tree include. */
#include "fio.h"
#include "optgroup.h"
