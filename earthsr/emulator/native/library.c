/* What stands around the functions of the table: Python's start, errors, and the host's floating point. */
#include <dlfcn.h>
#include <fenv.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define BMI_SUCCESS (0)
#define BMI_FAILURE (1)
#define EXPORTED __attribute__((visibility("default")))
#define MAX_TEXT 4096

/* Answers of Python. */
#define DONE 1

static __thread char last_error[MAX_TEXT];
/* Why Python, or the package in it, could not be started; empty where it could. */
static char start_error[MAX_TEXT];

static void copy_text(char *target, const char *text) {
  strncpy(target, text, MAX_TEXT - 1);
  target[MAX_TEXT - 1] = '\0';
}

/* Whether Python was started here, and is not the host's own. */
static int python_is_ours = 0;

/* Called by Python. */
static int owns_python(void) { return python_is_ours; }
static void keep_error(const char *text) { copy_text(last_error, text); }
static void keep_start_error(const char *text) { copy_text(start_error, text); }

/* Start Python as the virtual environment's own interpreter would, but leave the host's signals, locale, standard
   streams and arguments alone. What goes wrong is told, where Py_Initialize would end the process. */
static int start_python(void) {
  PyPreConfig before;
  PyConfig config;
  PyStatus status;
  Dl_info library;
  struct sigaction interrupt;
  const char *interpreter = getenv("EARTHSR_PYTHON");
  if (Py_IsInitialized()) return 1;
  /* A host that opened this library with RTLD_LOCAL hides libpython from extension modules, which do not name it. */
  if (dladdr((void *)Py_IsInitialized, &library)) dlopen(library.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_GLOBAL);
  PyPreConfig_InitPythonConfig(&before);
  before.configure_locale = 0;
  before.coerce_c_locale = 0;
  before.utf8_mode = 1;
  before.parse_argv = 0;
  status = Py_PreInitialize(&before);
  if (!PyStatus_Exception(status)) {
    PyConfig_InitPythonConfig(&config);
    config.install_signal_handlers = 0;
    config.configure_c_stdio = 0;
    config.parse_argv = 0;
    status = PyConfig_SetBytesString(&config, &config.program_name, interpreter ? interpreter : EARTHSR_INTERPRETER);
    if (!PyStatus_Exception(status)) status = Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
  }
  if (PyStatus_Exception(status)) {
    copy_text(start_error, "Python cannot be started: ");
    strncat(start_error, status.err_msg ? status.err_msg : "no reason given", MAX_TEXT - strlen(start_error) - 1);
    return 0;
  }
  /* Whoever first imports signal has SIGINT taken, install_signal_handlers or not: so that is now, and given back. */
  sigaction(SIGINT, NULL, &interrupt);
  Py_XDECREF(PyImport_ImportModule("_signal"));
  sigaction(SIGINT, &interrupt, NULL);
  PyErr_Clear();
  python_is_ours = 1;
  PyEval_SaveThread();
  return 1;
}

/* cffi's first call waits until a number of Python's is 0 that any use of capsules may have set: set it back. */
static void let_cffi_start(void) {
#if PY_VERSION_HEX < 0x030C0000
  PyGILState_STATE state = PyGILState_Ensure();
  PyType_Modified(&PyCapsule_Type);
  PyGILState_Release(state);
#endif
}

/* Put the host's floating point aside: its traps would stop computations that expect none, and flushing of small
   numbers to zero, or another rounding, would change maps. */
static int begun(fenv_t *kept, int has_model) {
  static volatile int lock = 0, started = 0;
  if (!has_model) {
    copy_text(last_error, "the model is NULL; fill a struct Bmi with register_bmi_earthsr first");
    return 0;
  }
  fegetenv(kept);
  fesetenv(FE_DFL_ENV);
  while (__sync_lock_test_and_set(&lock, 1)) {}
  if (!started && start_error[0] == '\0' && start_python()) {
    let_cffi_start();
    started = 1;
  }
  __sync_lock_release(&lock);
  if (!started) {
    copy_text(last_error, start_error);
    fesetenv(kept);
  }
  return started;
}

#define NO_ANSWER \
  "Python gave no answer; the environment of EARTHSR_PYTHON, else that of " EARTHSR_INTERPRETER \
  ", has to have earthsr[bmi]; standard error says why"

static int ended(fenv_t *kept, int answer) {
  fesetenv(kept);
  if (answer == DONE) return BMI_SUCCESS;
  if (answer == 0) copy_text(last_error, start_error[0] ? start_error : NO_ANSWER);
  return BMI_FAILURE;
}

EXPORTED const char *earthsr_bmi_last_error(void) { return last_error; }

EXPORTED void earthsr_bmi_refuse(const char *text) { keep_error(text); }

EXPORTED int earthsr_bmi_set_log(void (*log)(int level, const char *text, void *context), void *context) {
  fenv_t kept;
  if (!begun(&kept, 1)) return BMI_FAILURE;
  return ended(&kept, python_set_log(log, context));
}

EXPORTED int earthsr_bmi_set_threads(int count) {
  static const char *const names[] = {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "GDAL_NUM_THREADS"};
  fenv_t kept;
  char text[16];
  size_t i;
  if (count > 0 && !Py_IsInitialized()) {
    /* Before Python: some libraries count once, when they are loaded. */
    snprintf(text, sizeof text, "%d", count);
    for (i = 0; i < sizeof names / sizeof *names; i++) setenv(names[i], text, 1);
  }
  if (!begun(&kept, 1)) return BMI_FAILURE;
  return ended(&kept, python_set_threads(count));
}

EXPORTED Bmi *register_bmi_earthsr(Bmi *self);

EXPORTED Bmi *earthsr_bmi_new(void) { return register_bmi_earthsr(calloc(1, sizeof(Bmi))); }

EXPORTED void earthsr_bmi_free(Bmi *model) { free(model); }
