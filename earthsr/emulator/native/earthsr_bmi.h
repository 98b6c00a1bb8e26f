/* libearthsr_bmi: the emulator of earthsr behind the Basic Model Interface (CSDMS bmi-c 2.0).

   All functions return BMI_SUCCESS or BMI_FAILURE; earthsr_bmi_last_error() says why. After a failure time and all
   variables are as they were. Nothing here ends the process, takes a signal or writes on standard output. */
#ifndef EARTHSR_BMI_H
#define EARTHSR_BMI_H

#include "bmi.h"

#if defined(__cplusplus)
extern "C" {
#endif

/* Fill a struct of the host's with the functions below. Each struct is a model of its own once it is initialised. */
Bmi *register_bmi_earthsr(Bmi *model);

/* A struct that is allocated and filled here, for hosts in other languages; free it after finalize. */
Bmi *earthsr_bmi_new(void);
void earthsr_bmi_free(Bmi *model);

/* Text of the last failure in this thread, one line of UTF-8; valid until the next call in this thread. */
const char *earthsr_bmi_last_error(void);

/* Take the log: level 10 to 50 (30 is a warning, 40 an error), one message, and what was given as context. Without
   it warnings go to standard error. NULL gives it back. The text is valid during the call. */
int earthsr_bmi_set_log(void (*log)(int level, const char *text, void *context), void *context);

/* Threads of all computations in this process, 1 or more; before the first initialize. Sets OMP_NUM_THREADS,
   OPENBLAS_NUM_THREADS, MKL_NUM_THREADS and GDAL_NUM_THREADS. */
int earthsr_bmi_set_threads(int count);

/* Of the functions below, those that bmi-c does not have: one of several ranks that make a region together; get_value and set_value with the type ("double", "float",
   "int", "unsigned char") and number of items, which are checked and brought to the variable's; seconds that a year
   may take, after which it is late, which is logged and counted (0: no deadline); seconds of the last and the longest
   update, and how many were late. */
