/* SPDX-License-Identifier: MIT */
/*
 * HskScreen (display/screen.h): cairo draws straight from the machine's memory, so a changed
 * rectangle costs one copy to the display server. Damage is acknowledged after it was painted: a
 * window that is not painted asks for nothing.
 *
 * Sizes: "device" pixels are widget pixels times the scale factor; the guest's pixels are mapped to
 * those. Deliberately missing: cursor shapes, pointer lock, seat grabs (they need messages and
 * desktops of their own kind).
 */
#include <display/screen.h>

#include <glib-unix.h>
#include <linux/input-event-codes.h>
#include <math.h>

#define HOST_KEY       KEY_RIGHTCTRL
#define HINT_DELAY_MS  250
#define FLUSH_RETRY_MS 50

struct _HskScreen {
    GtkDrawingArea parent;
    struct hsk_display_client *client; /* NULL before the first attach */
    struct hsk_display_client
        *previous; /* its picture is shown until the new machine's first one */
    guint watch, flush_timer, hint_timer;
    bool attached, fit, absolute, ack_wanted;
    struct hsk_display_view view;
    GdkFrameClock *clock;
    GtkWidget *toplevel;
    guint8 pressed[HSK_DISPLAY_KEY_MAX / 8 + 1]; /* what the guest believes to be held */
    guint8
        swallowed[HSK_DISPLAY_KEY_MAX / 8 + 1]; /* host combinations: their releases are ours too */
    bool host_down, host_used;
    guint32 buttons;
    double last_x, last_y; /* of the pointer, in guest pixels: for relative motion */
    double rest_x, rest_y;
};

G_DEFINE_FINAL_TYPE(HskScreen, hsk_screen, GTK_TYPE_DRAWING_AREA)

enum { SIGNAL_HOST_KEY, SIGNAL_LEAVE, SIGNAL_LOST, SIGNAL_SHAPE, N_SIGNALS };
static guint signals[N_SIGNALS];

static bool bit_test(const guint8 *set, unsigned code)
{
    return set[code / 8] & (1u << (code % 8));
}
static void bit_put(guint8 *set, unsigned code, bool on)
{
    set[code / 8] =
        (guint8)(on ? set[code / 8] | (1u << (code % 8)) : set[code / 8] & ~(1u << (code % 8)));
}

/* ---- geometry ---- */

struct placement {
    double zoom; /* device pixels per guest pixel */
    double x, y; /* of the picture in device pixels */
    int factor;
};

static struct placement place(HskScreen *s)
{
    struct placement p = {.zoom = 1, .factor = gtk_widget_get_scale_factor(GTK_WIDGET(s))};
    double width = (double)gtk_widget_get_allocated_width(GTK_WIDGET(s)) * p.factor;
    double height = (double)gtk_widget_get_allocated_height(GTK_WIDGET(s)) * p.factor;

    if (!s->view.width)
        return p;
    p.zoom = MIN(width / s->view.width, height / s->view.height);
    if (p.zoom >= 1 && !s->fit)
        p.zoom = floor(p.zoom);
    p.zoom = MAX(p.zoom, 0.01);
    p.x = floor((width - s->view.width * p.zoom) / 2);
    p.y = floor((height - s->view.height * p.zoom) / 2);
    return p;
}

struct hsk_display_view hsk_screen_view(HskScreen *s)
{
    return s->view;
}

/* ---- what comes from the machine ---- */

static gboolean on_flush_timer(gpointer opaque)
{
    HskScreen *s = opaque;

    hsk_display_client_flush(s->client);
    if (hsk_display_client_backlog(s->client))
        return G_SOURCE_CONTINUE;
    s->flush_timer = 0;
    return G_SOURCE_REMOVE;
}

static void retry_backlog(HskScreen *s)
{
    if (s->attached && !s->flush_timer && hsk_display_client_backlog(s->client))
        s->flush_timer = g_timeout_add(FLUSH_RETRY_MS, on_flush_timer, s);
}

static void on_surface(void *opaque)
{
    HskScreen *s = opaque;
    struct hsk_display_view old = s->view;

    g_clear_pointer(&s->previous, hsk_display_client_free);
    s->view = hsk_display_client_view(s->client);
    gtk_widget_queue_draw(GTK_WIDGET(s));
    if (old.width != s->view.width || old.height != s->view.height)
        g_signal_emit(s, signals[SIGNAL_SHAPE], 0);
}

static void on_dirty(void *opaque, const struct hsk_display_rect *rects, unsigned count)
{
    HskScreen *s = opaque;
    struct placement p = place(s);

    if (!s->clock) {
        hsk_display_client_ack(s->client);
        return;
    }
    for (unsigned i = 0; i < count; i++) {
        /* One pixel more on each side: a scaled neighbour takes part of the colour. */
        double left = (p.x + rects[i].x * p.zoom) / p.factor - 1;
        double top = (p.y + rects[i].y * p.zoom) / p.factor - 1;

        gtk_widget_queue_draw_area(GTK_WIDGET(s), (int)floor(left), (int)floor(top),
                                   (int)ceil(rects[i].width * p.zoom / p.factor) + 3,
                                   (int)ceil(rects[i].height * p.zoom / p.factor) + 3);
    }
    s->ack_wanted = true;
    gdk_frame_clock_request_phase(s->clock, GDK_FRAME_CLOCK_PHASE_AFTER_PAINT);
}

static void on_mode(void *opaque, bool absolute)
{
    ((HskScreen *)opaque)->absolute = absolute;
}

static void on_state(void *opaque, enum hsk_display_state state)
{
    AtkObject *atk = gtk_widget_get_accessible(GTK_WIDGET(opaque));

    atk_object_set_description(atk, state == HSK_DISPLAY_PAUSED ? "The machine is paused"
                                                                : "The machine is running");
}

static const struct hsk_display_client_ops client_ops = {
    .surface = on_surface,
    .dirty = on_dirty,
    .mode = on_mode,
    .state = on_state,
};

static void on_after_paint(GdkFrameClock *clock, HskScreen *s)
{
    if (!s->ack_wanted || !s->attached)
        return;
    s->ack_wanted = false;
    hsk_display_client_ack(s->client);
    retry_backlog(s);
}

static gboolean on_readable(gint fd, GIOCondition condition, gpointer opaque)
{
    HskScreen *s = opaque;
    g_autoptr(GError) error = NULL;

    if (hsk_display_client_dispatch(s->client, &error)) {
        retry_backlog(s);
        return G_SOURCE_CONTINUE;
    }
    s->watch = 0;
    s->attached = false;
    memset(s->pressed, 0, sizeof(s->pressed));
    g_clear_handle_id(&s->flush_timer, g_source_remove);
    gtk_widget_queue_draw(GTK_WIDGET(s));
    g_signal_emit(s, signals[SIGNAL_LOST], 0, error ? error->message : NULL);
    return G_SOURCE_REMOVE;
}

static void send_hint(HskScreen *s)
{
    int factor = gtk_widget_get_scale_factor(GTK_WIDGET(s));
    guint32 width = (guint32)(gtk_widget_get_allocated_width(GTK_WIDGET(s)) * factor) & ~7u;
    guint32 height = (guint32)(gtk_widget_get_allocated_height(GTK_WIDGET(s)) * factor) & ~1u;

    if (s->attached && width && height && width <= HSK_DISPLAY_MAX_DIM &&
        height <= HSK_DISPLAY_MAX_DIM)
        hsk_display_client_size_hint(s->client, width, height);
}

void hsk_screen_attach(HskScreen *s, int sock)
{
    g_clear_handle_id(&s->watch, g_source_remove);
    g_clear_handle_id(&s->flush_timer, g_source_remove);
    /* The mapping of a machine that is gone stays readable: its memory lives as long as somebody
     * maps it. */
    if (s->previous)
        g_clear_pointer(&s->client, hsk_display_client_free);
    else
        s->previous = g_steal_pointer(&s->client);
    memset(s->pressed, 0, sizeof(s->pressed));
    s->ack_wanted = false;
    s->client = hsk_display_client_new(sock, &client_ops, s);
    s->attached = true;
    s->watch = g_unix_fd_add(sock, G_IO_IN | G_IO_HUP, on_readable, s);
    hsk_display_client_set_visible(s->client, gtk_widget_get_mapped(GTK_WIDGET(s)));
    send_hint(s);
    retry_backlog(s);
}

bool hsk_screen_attached(HskScreen *s)
{
    return s->attached;
}

void hsk_screen_set_fit(HskScreen *s, bool fit)
{
    s->fit = fit;
    gtk_widget_queue_draw(GTK_WIDGET(s));
}

/* ---- drawing ---- */

static gboolean hsk_screen_draw(GtkWidget *widget, cairo_t *cr)
{
    HskScreen *s = HSK_SCREEN(widget);
    struct placement p = place(s);
    cairo_surface_t *image;

    cairo_set_source_rgb(cr, 0, 0, 0);
    cairo_paint(cr);
    if (!s->view.pixels)
        return TRUE;
    image = cairo_image_surface_create_for_data((guchar *)s->view.pixels, CAIRO_FORMAT_RGB24,
                                                (int)s->view.width, (int)s->view.height,
                                                (int)s->view.stride_bytes);
    cairo_save(cr);
    cairo_scale(cr, 1.0 / p.factor, 1.0 / p.factor);
    cairo_translate(cr, p.x, p.y);
    cairo_scale(cr, p.zoom, p.zoom);
    cairo_set_source_surface(cr, image, 0, 0);
    cairo_pattern_set_filter(cairo_get_source(cr), fabs(p.zoom - round(p.zoom)) < 1e-6
                                                       ? CAIRO_FILTER_NEAREST
                                                       : CAIRO_FILTER_BILINEAR);
    cairo_rectangle(cr, 0, 0, s->view.width, s->view.height);
    cairo_fill(cr);
    cairo_restore(cr);
    cairo_surface_destroy(image);
    if (!s->attached) {
        cairo_set_source_rgba(cr, 0, 0, 0, 0.6);
        cairo_paint(cr);
    }
    return TRUE;
}

/* ---- keys ---- */

void hsk_screen_release_keys(HskScreen *s)
{
    memset(s->pressed, 0, sizeof(s->pressed));
    s->host_down = false;
    s->buttons = 0;
    if (s->attached)
        hsk_display_client_release_all(s->client);
    retry_backlog(s);
}

static bool key_down(HskScreen *s, unsigned code)
{
    bool in_guest = gtk_widget_has_focus(GTK_WIDGET(s));

    if (code == HOST_KEY) {
        s->host_used = s->host_used && s->host_down;
        s->host_down = true;
        return true;
    }
    if (s->host_down) {
        gboolean handled = FALSE;

        s->host_used = true;
        if (bit_test(s->swallowed, code))
            return true;
        bit_put(s->swallowed, code, true);
        g_signal_emit(s, signals[SIGNAL_HOST_KEY], 0, code, &handled);
        return true;
    }
    if (!in_guest)
        return false;
    /* A held key repeats on the host; the guest's keyboard does its own repeating. */
    if (s->attached && !bit_test(s->pressed, code)) {
        bit_put(s->pressed, code, true);
        hsk_display_client_key(s->client, (uint16_t)code, true);
        retry_backlog(s);
    }
    return true;
}

static bool key_up(HskScreen *s, unsigned code)
{
    if (code == HOST_KEY) {
        bool alone = s->host_down && !s->host_used;

        s->host_down = s->host_used = false;
        if (alone && gtk_widget_has_focus(GTK_WIDGET(s)))
            g_signal_emit(s, signals[SIGNAL_LEAVE], 0);
        else if (alone)
            gtk_widget_grab_focus(GTK_WIDGET(s));
        return true;
    }
    if (bit_test(s->swallowed, code)) {
        bit_put(s->swallowed, code, false);
        return true;
    }
    if (bit_test(s->pressed, code)) {
        bit_put(s->pressed, code, false);
        if (s->attached)
            hsk_display_client_key(s->client, (uint16_t)code, false);
        retry_backlog(s);
    }
    return gtk_widget_has_focus(GTK_WIDGET(s));
}

/* On the window, before GTK's own handler: Tab, F10, arrows and mnemonics belong to the guest. */
static gboolean on_window_key(GtkWidget *toplevel, GdkEventKey *event, HskScreen *s)
{
    unsigned code = event->hardware_keycode >= 8 ? event->hardware_keycode - 8u : 0;

    if (!code || code > HSK_DISPLAY_KEY_MAX)
        return FALSE;
    return event->type == GDK_KEY_PRESS ? key_down(s, code) : key_up(s, code);
}

static gboolean hsk_screen_focus_out(GtkWidget *widget, GdkEventFocus *event)
{
    hsk_screen_release_keys(HSK_SCREEN(widget));
    return GTK_WIDGET_CLASS(hsk_screen_parent_class)->focus_out_event(widget, event);
}

/* ---- pointer ---- */

static void to_guest(HskScreen *s, double x, double y, double *gx, double *gy)
{
    struct placement p = place(s);

    *gx = CLAMP((x * p.factor - p.x) / p.zoom, 0, s->view.width - 1.0);
    *gy = CLAMP((y * p.factor - p.y) / p.zoom, 0, s->view.height - 1.0);
}

static void send_pointer(HskScreen *s, double x, double y)
{
    double gx, gy;

    if (!s->attached || !s->view.width)
        return;
    to_guest(s, x, y, &gx, &gy);
    if (s->absolute) {
        double w = MAX(s->view.width - 1.0, 1), h = MAX(s->view.height - 1.0, 1);

        hsk_display_client_pointer_abs(s->client, (uint16_t)(gx * HSK_DISPLAY_ABS_MAX / w),
                                       (uint16_t)(gy * HSK_DISPLAY_ABS_MAX / h), s->buttons);
    } else {
        double dx = gx - s->last_x + s->rest_x, dy = gy - s->last_y + s->rest_y;

        hsk_display_client_pointer_rel(s->client, (int16_t)dx, (int16_t)dy, s->buttons);
        s->rest_x = dx - trunc(dx);
        s->rest_y = dy - trunc(dy);
    }
    s->last_x = gx;
    s->last_y = gy;
}

static gboolean hsk_screen_motion(GtkWidget *widget, GdkEventMotion *event)
{
    send_pointer(HSK_SCREEN(widget), event->x, event->y);
    return TRUE;
}

static gboolean hsk_screen_enter(GtkWidget *widget, GdkEventCrossing *event)
{
    HskScreen *s = HSK_SCREEN(widget);

    /* Relative motion starts where the pointer comes in. */
    if (s->view.width)
        to_guest(s, event->x, event->y, &s->last_x, &s->last_y);
    return FALSE;
}

static gboolean hsk_screen_button(GtkWidget *widget, GdkEventButton *event)
{
    static const guint32 bits[] = {0, HSK_DISPLAY_BUTTON_LEFT, HSK_DISPLAY_BUTTON_MIDDLE,
                                   HSK_DISPLAY_BUTTON_RIGHT};
    HskScreen *s = HSK_SCREEN(widget);

    if (event->button >= G_N_ELEMENTS(bits) || !event->button)
        return TRUE;
    /* A double click of GTK's is the second of two plain ones for the guest. */
    if (event->type != GDK_BUTTON_PRESS && event->type != GDK_BUTTON_RELEASE)
        return TRUE;
    if (event->type == GDK_BUTTON_PRESS) {
        gtk_widget_grab_focus(widget);
        s->buttons |= bits[event->button];
    } else {
        s->buttons &= ~bits[event->button];
    }
    send_pointer(s, event->x, event->y);
    return TRUE;
}

static gboolean hsk_screen_scroll(GtkWidget *widget, GdkEventScroll *event)
{
    HskScreen *s = HSK_SCREEN(widget);
    double clicks = 0;

    if (event->direction == GDK_SCROLL_UP)
        clicks = 1;
    else if (event->direction == GDK_SCROLL_DOWN)
        clicks = -1;
    else if (event->direction == GDK_SCROLL_SMOOTH)
        clicks = -event->delta_y;
    if (s->attached && clicks != 0)
        hsk_display_client_wheel(s->client, (int32_t)CLAMP(clicks * 120, -12000, 12000));
    return TRUE;
}

/* ---- life of the widget ---- */

static gboolean on_hint_timer(gpointer opaque)
{
    HskScreen *s = opaque;

    s->hint_timer = 0;
    send_hint(s);
    return G_SOURCE_REMOVE;
}

static void hsk_screen_size_allocate(GtkWidget *widget, GtkAllocation *allocation)
{
    HskScreen *s = HSK_SCREEN(widget);

    GTK_WIDGET_CLASS(hsk_screen_parent_class)->size_allocate(widget, allocation);
    g_clear_handle_id(&s->hint_timer, g_source_remove);
    s->hint_timer = g_timeout_add(HINT_DELAY_MS, on_hint_timer, s);
}

static void hsk_screen_map(GtkWidget *widget)
{
    HskScreen *s = HSK_SCREEN(widget);

    GTK_WIDGET_CLASS(hsk_screen_parent_class)->map(widget);
    if (s->attached)
        hsk_display_client_set_visible(s->client, true);
}

static void hsk_screen_unmap(GtkWidget *widget)
{
    HskScreen *s = HSK_SCREEN(widget);

    if (s->attached) {
        hsk_display_client_set_visible(s->client, false);
        hsk_screen_release_keys(s);
        /* Nothing will be painted now. */
        hsk_display_client_ack(s->client);
        s->ack_wanted = false;
    }
    GTK_WIDGET_CLASS(hsk_screen_parent_class)->unmap(widget);
}

static void hsk_screen_realize(GtkWidget *widget)
{
    HskScreen *s = HSK_SCREEN(widget);

    GTK_WIDGET_CLASS(hsk_screen_parent_class)->realize(widget);
    s->clock = g_object_ref(gdk_window_get_frame_clock(gtk_widget_get_window(widget)));
    g_signal_connect(s->clock, "after-paint", G_CALLBACK(on_after_paint), s);
    s->toplevel = gtk_widget_get_toplevel(widget);
    g_signal_connect(s->toplevel, "key-press-event", G_CALLBACK(on_window_key), s);
    g_signal_connect(s->toplevel, "key-release-event", G_CALLBACK(on_window_key), s);
}

static void hsk_screen_unrealize(GtkWidget *widget)
{
    HskScreen *s = HSK_SCREEN(widget);

    g_signal_handlers_disconnect_by_data(s->clock, s);
    g_signal_handlers_disconnect_by_data(s->toplevel, s);
    g_clear_object(&s->clock);
    s->toplevel = NULL;
    GTK_WIDGET_CLASS(hsk_screen_parent_class)->unrealize(widget);
}

static void hsk_screen_finalize(GObject *object)
{
    HskScreen *s = HSK_SCREEN(object);

    g_clear_handle_id(&s->watch, g_source_remove);
    g_clear_handle_id(&s->flush_timer, g_source_remove);
    g_clear_handle_id(&s->hint_timer, g_source_remove);
    hsk_display_client_free(s->client);
    hsk_display_client_free(s->previous);
    G_OBJECT_CLASS(hsk_screen_parent_class)->finalize(object);
}

static void hsk_screen_class_init(HskScreenClass *class)
{
    GtkWidgetClass *widget = GTK_WIDGET_CLASS(class);

    G_OBJECT_CLASS(class)->finalize = hsk_screen_finalize;
    widget->draw = hsk_screen_draw;
    widget->map = hsk_screen_map;
    widget->unmap = hsk_screen_unmap;
    widget->realize = hsk_screen_realize;
    widget->unrealize = hsk_screen_unrealize;
    widget->size_allocate = hsk_screen_size_allocate;
    widget->focus_out_event = hsk_screen_focus_out;
    widget->motion_notify_event = hsk_screen_motion;
    widget->enter_notify_event = hsk_screen_enter;
    widget->button_press_event = hsk_screen_button;
    widget->button_release_event = hsk_screen_button;
    widget->scroll_event = hsk_screen_scroll;
    gtk_widget_class_set_accessible_role(widget, ATK_ROLE_CANVAS);
    signals[SIGNAL_HOST_KEY] =
        g_signal_new("host-key", HSK_TYPE_SCREEN, G_SIGNAL_RUN_LAST, 0,
                     g_signal_accumulator_true_handled, NULL, NULL, G_TYPE_BOOLEAN, 1, G_TYPE_UINT);
    signals[SIGNAL_LEAVE] = g_signal_new("leave", HSK_TYPE_SCREEN, G_SIGNAL_RUN_LAST, 0, NULL, NULL,
                                         NULL, G_TYPE_NONE, 0);
    signals[SIGNAL_LOST] = g_signal_new("lost", HSK_TYPE_SCREEN, G_SIGNAL_RUN_LAST, 0, NULL, NULL,
                                        NULL, G_TYPE_NONE, 1, G_TYPE_STRING);
    signals[SIGNAL_SHAPE] = g_signal_new("shape", HSK_TYPE_SCREEN, G_SIGNAL_RUN_LAST, 0, NULL, NULL,
                                         NULL, G_TYPE_NONE, 0);
}

static void hsk_screen_init(HskScreen *s)
{
    GtkWidget *widget = GTK_WIDGET(s);

    gtk_widget_set_can_focus(widget, TRUE);
    gtk_widget_add_events(widget, GDK_POINTER_MOTION_MASK | GDK_BUTTON_PRESS_MASK |
                                      GDK_BUTTON_RELEASE_MASK | GDK_SCROLL_MASK |
                                      GDK_SMOOTH_SCROLL_MASK | GDK_ENTER_NOTIFY_MASK |
                                      GDK_FOCUS_CHANGE_MASK);
    atk_object_set_name(gtk_widget_get_accessible(widget), "Guest screen");
}

GtkWidget *hsk_screen_new(void)
{
    return g_object_new(HSK_TYPE_SCREEN, NULL);
}
